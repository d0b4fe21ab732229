"""Calibration data: where texts come from, and the batches that are made of them."""
