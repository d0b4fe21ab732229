"""Kinds of models, one file each, with a `KIND` (see `matrix.kind`); a new file is a new kind."""
