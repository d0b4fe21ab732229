"""Checkpoints on disk: opened lazily, written in a stream, replaced whole or not at all."""
