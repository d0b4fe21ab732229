"""Removing whole units: heads, channels, experts, layers, the residual stream."""
