"""What trained policies do: episodes, calibration, tables, plots, films."""
