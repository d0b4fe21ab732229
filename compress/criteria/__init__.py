"""Criteria: pure functions from weights and statistics to saliency; higher = keep. `compress.score.score` calls them.

The scope of a registration (`compress.registry.scope`) says what the function receives, by argument name, and what it
returns; what else can be said of a criterion is in `compress.registry.metadata`.
"""
