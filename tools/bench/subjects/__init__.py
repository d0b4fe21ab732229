"""Models that others trained, with what they are calibrated on and measured by, for tools/bench/vision.py."""
