"""What a criterion is shown and what it ranks: the part of a scope that a recipe is checked against.

How a scope is scored lies in a file of its own name in `compress.score.scopes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True)
class Rules:
    """`only` are the kinds of families that can be ranked (None: any but those of `never`).

    `for_weights`: single weights are told apart, so `prune: weights` may use it. `updates`: the weights that stay
    change. `makes_clusters`: what comes back are distances, by which units are clustered. `learns`: all families are
    seen before any is scored.
    """

    name: str
    only: frozenset[str] | None = None
    never: frozenset[str] = frozenset()
    for_weights: bool = False
    updates: bool = False
    makes_clusters: bool = False
    learns: bool = False


class Scope(Enum):
    """What a criterion receives, by argument name, and what it returns; higher = keep.

    Every function is also passed `kind` (the family's) and `seed` (the recipe's) where it has such an argument.
    """

    WEIGHTS = Rules("weights", for_weights=True)
    """`weight` `[out, in]` and its statistics → saliency `[out, in]`; rows may come a part at a time."""

    INPUTS = Rules("inputs", never=frozenset({"layers"}))
    """The consuming `weight` and statistics `[in]` → score per input channel `[in]`."""

    UNITS = Rules("units", never=frozenset({"layers"}))
    """`views`: every `MemberView` of one family → score per group `[size]`."""

    CONSUMERS = Rules("consumers", only=frozenset({"heads", "queries", "head_dim", "channels"}))
    """`views`: every `MemberView` that consumes one family, which a repair can update, and which of them are `biased` →
    score per group `[size]`."""

    GAINS = Rules("gains", only=frozenset({"channels", "hidden"}))
    """The `gain` of a batch norm that runs along the family, `[channels]` → saliency `[channels]`."""

    EXPERTS = Rules("experts", only=frozenset({"experts"}))
    """Statistics `[experts]` of one block → score per expert `[experts]`."""

    DISTANCES = Rules("distances", only=frozenset({"experts"}), makes_clusters=True)
    """The `router` `[experts, hidden]` and statistics → how unlike experts are, `[experts, experts]`."""

    LAYERS = Rules("layers", only=frozenset({"layers"}))
    """Statistics per block `[blocks]` → score per block `[blocks]`."""

    FAMILIES = Rules("families", for_weights=True)
    """`family` itself → score per group `[size]`."""

    LEARNED = Rules("learned", never=frozenset({"layers"}), learns=True)
    """A class, `compress.score.learning.Learner`: from all families it learns tensors, by which it scores each."""

    UPDATE = Rules("update", only=frozenset(), for_weights=True, updates=True)
    """`weight`, statistics, the `share` that goes, a pattern's `block` → the weight as it is to be, `[out, in]`."""

    @property
    def for_weights(self) -> bool:
        """Whether it tells single weights apart, so that `prune: weights` may use it."""
        return self.value.for_weights

    @property
    def updates(self) -> bool:
        """Whether it changes the weights that stay."""
        return self.value.updates

    @property
    def makes_clusters(self) -> bool:
        """Whether units are clustered by what it returns."""
        return self.value.makes_clusters

    @property
    def learns(self) -> bool:
        """Whether it learns from all families before it scores any."""
        return self.value.learns

    @property
    def ranked(self) -> str:
        """The kinds that can be ranked, in words."""
        rules: Rules = self.value
        if rules.only is None:
            return f"all but {' and '.join(sorted(rules.never))}" if rules.never else "all kinds"
        return " and ".join(sorted(rules.only)) or "nothing"

    def ranks(self, kind: str) -> bool:
        """Whether groups of a family of this kind can be ranked."""
        rules: Rules = self.value
        return kind not in rules.never if rules.only is None else kind in rules.only

    def __str__(self) -> str:
        return self.value.name
