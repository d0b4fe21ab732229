"""Executing a plan: cutting tensors, and finding who can open the result."""
