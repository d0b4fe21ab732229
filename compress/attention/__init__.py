"""Attention, readable while a model runs: who looks at whom, whichever implementation computes it."""
