"""What may be asked of a model, round by round: criteria first, then repairs, then more kinds of units and widths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from compress.damage.reconstruction import consumers
from compress.model.model import Model
from compress.recipe.prune import Widths

RIDGES = (0.03, 0.1, 0.3)
"""Of least squares: little for much and like text, more for little."""

CRITERIA = {"experts": ("reap", "frequency")}
USUAL = ("curvature", "fluctuation", "wanda")
"""Criteria that rank a kind, by kind, and those of all others; the first is the one that is best most often."""

JOINED = ("heads", "channels")
"""Kinds that one step can take together, since one criterion ranks both."""


@dataclass(frozen=True)
class Candidate:
    """A way to go about it: `kinds` of units ranked by a `criterion`, `widths`, and what reads them repaired with a
    `ridge`, None where nothing can make up for them."""

    kinds: tuple[str, ...]
    criterion: str
    ridge: float | None = RIDGES[1]
    widths: Widths = "uniform"

    @property
    def overrides(self) -> list[str]:
        """What it changes of the recipe `auto`."""
        repair = "null" if self.ridge is None else f"{{least_squares: {{ridge: {self.ridge}, per: input}}}}"
        return [
            f"steps.0.prune=[{', '.join(self.kinds)}]",
            f"steps.0.by={self.criterion}",
            f"steps.0.widths={self.widths}",
            f"steps.0.repair={repair}",
            *(["steps.0.round=1"] if self.kinds == ("experts",) else []),  # there are few of them
        ]

    def __str__(self) -> str:
        said = [f"{' and '.join(self.kinds)} by {self.criterion}"]
        if self.widths == "per-layer":
            said.append("widths by layer")
        if self.ridge is not None:
            said.append(f"ridge {self.ridge}")
        return ", ".join(said)


def first(source: Model) -> list[Candidate]:
    """The kinds that the model has free to lose, each alone, by every criterion: with equal widths these take no trials
    to decide. Heads alone only where there are no channels, of which there are more and finer ones."""
    free = _free(source)
    kinds = [kind for kind in ("experts", "channels") if kind in free] or [kind for kind in ("heads",) if kind in free]
    return [
        Candidate((kind,), criterion, _ridge(source, (kind,)))
        for kind in kinds
        for criterion in CRITERIA.get(kind, USUAL)
    ]


def rounds(source: Model, widths: Widths) -> tuple[Callable[[Candidate], Iterator[Candidate]], ...]:
    """What is tried after the `first` ones: two functions from the best until then to what lies near it.

    First other ridges, which cost little; then more freedom, widths by layer where these are wanted and heads beside
    channels, which takes trials to decide.
    """

    def freer(best: Candidate) -> Iterator[Candidate]:
        if widths != best.widths:
            yield replace(best, widths=widths)
        if best.kinds[0] in JOINED and _free(source).issuperset(JOINED):
            yield replace(best, kinds=JOINED, widths=widths, ridge=best.ridge or _ridge(source, JOINED))

    def repaired(best: Candidate) -> Iterator[Candidate]:
        if best.ridge is not None:
            yield from (replace(best, ridge=ridge) for ridge in RIDGES if ridge != best.ridge)

    return repaired, freer


def _ridge(source: Model, kinds: tuple[str, ...]) -> float | None:
    """The usual one where plain projections read the kinds, which others cannot make up for."""
    read = any(consumers(source, family) for family in source.graph.families.values() if family.kind in kinds)
    return RIDGES[1] if read else None


def _free(source: Model) -> set[str]:
    return {family.kind for family in source.graph.families.values() if family.pinned is None}
