"""Allocators: from scores, savings and a budget to what is kept. `spend.allocate` is the way in; numpy only.

`function(pools: list[Pool], budget: float, …) -> list[int]` returns how many bundles each pool keeps, never less than
its `minimum`, such that what the removed bundles save is at least `budget` (in the unit of the pools' costs) if the
pools can. `needs=("block_angle",)` adds that statistic as an argument, `[blocks]`. `normalize="zscore"` asks for scores
that are standardised in each family; `layerwise=True` refuses pools that tie layers together.
"""
