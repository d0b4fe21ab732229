"""Token scores: pure functions from what a group's tokens did to a score of each, float32 `[n]`; higher = kept.

`layers` of a score are those whose attention or modules it reads, negative ones counted from the end.
"""
