"""Calibration: text runs through the model block by block, and statistics are gathered on the way."""
