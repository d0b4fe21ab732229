"""Statistics that criteria and repairs ask for by name: each is a function of sums gathered at one place.

`at` says where: `input` of a projection (key: its weight's name), `block` (key: the block's name) or `gradient` of a
tensor (key: its name). `sums` are the ones it needs, see `compress.calibrate.totals`.
"""
