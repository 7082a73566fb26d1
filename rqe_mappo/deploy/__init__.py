"""Trained policies for those who use them: load, mix, export, share."""
