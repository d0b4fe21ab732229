"""Where a model has its pictures: one file for each way in which a tower's patches become tokens of a prompt.

A kind of places is a class with `fits(core)` and the rest of `compress.runtime.tokens.places.kind.Places`, registered
with `compress.registry.token_places.add`.
"""
