"""Proof before the rename: what was written has the shapes of its config, computes what it should, and decodes."""
