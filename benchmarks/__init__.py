"""Measurements: each module is a command, each result a small file in benchmarks/results/."""
