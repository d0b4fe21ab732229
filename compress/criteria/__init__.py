"""Criteria: pure functions from weights and statistics to saliency; higher = keep. `compress.score.score` calls them.

The `scope` of a registration says what the function receives, by argument name:
`weights`  weight `[out, in]` and the statistics it needs → saliency `[out, in]`; rows may come a part at a time;
`inputs`   the consuming weight and statistics `[in]` → score per input channel `[in]`;
`units`    `views`: every `MemberView` of one family → score per group `[size]`;
`experts`  statistics `[experts]` of one block → score per expert `[experts]`;
`distances` the `router` `[experts, hidden]` and statistics → how unlike experts are, `[experts, experts]`; those that
           are alike are clustered, and one of each cluster stays;
`layers`   statistics per block `[blocks]` → score per block `[blocks]`;
`families` `family` itself → score per group `[size]`.
`kind` (the family's) and `seed` (the recipe's) are passed to a function that has such an argument. `on` is `in` when
only consuming weights count and `all` otherwise; `needs` are statistics, and `when={argument: statistics}` those
needed only if that argument is true, or `when={argument: {value: statistics}}` if it has that value.
"""
