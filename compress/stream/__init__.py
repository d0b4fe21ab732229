"""A model run block by block, from its files, one block in memory at a time."""
