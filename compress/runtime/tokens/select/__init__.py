"""Token selections: pure functions that choose `keep` of a group's tokens. They return a `Selection`.

All tokens in their order where `keep` is their number. Of equal scores the first is kept.
"""
