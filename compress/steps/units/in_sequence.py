"""Pruning block after block: each is scored on what the already pruned ones before it give (`propagate: pruned`)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import nn

from compress.allocate.pools import ranking
from compress.allocate.spend import allocate
from compress.calibrate import distributed
from compress.calibrate.collect import Stats, collect
from compress.calibrate.site import at_sites
from compress.damage.block import prune_block
from compress.errors import BudgetError, InputError
from compress.execution.context import Context, Needs
from compress.graph.families import Family
from compress.recipe.prune import Prune
from compress.registry import allocators, criteria
from compress.score.learning import Learned
from compress.score.score import score, statistics_of
from compress.steps.units.decide import Decided, bound_repair, decide, learned_of, wants
from compress.steps.units.saliency import Saliency, saliency_kept


def in_sequence(
    context: Context, step: Prune, families: list[Family], given: Mapping[str, np.ndarray] | None = None
) -> tuple[Decided, Stats]:
    """What is decided when blocks are pruned one after the other, and the repair's statistics.

    `given` masks (of a plan) are taken instead of new choices. Every process of a distributed run must call it. Raises
    InputError where the step cannot be decided block by block, BudgetError where nothing would go.
    """
    check(step, families)
    sequence = Sequence(context, step, families, given if given is not None else _counts(context, step, families))
    needs = wants(context.source, step, families, decide=given is None)
    stats = sequence.collect(needs)
    if not sequence.kept:
        raise BudgetError("nothing would be removed: the budget is smaller than the smallest group; ask for more")
    return Decided(sequence.kept, {}, sequence.saliency), stats


def check(step: Prune, families: list[Family]) -> None:
    """Raises InputError where a step cannot be decided block by block."""
    if spread := next((f for f in families if f.layer is None), None):
        raise InputError(
            f"propagate: pruned decides block by block, and {spread.name} spans several; take `propagate: dense`"
        )
    needs = statistics_of(criteria.get(step.by.name), step.by.arguments)
    if at_sites(needs, backward=True):
        raise InputError(f"propagate: pruned runs forwards only, and {step.by.name} needs gradients; take `dense`")
    if needs and criteria.get(step.by.name).meta.scope.learns:
        raise InputError(f"propagate: pruned gathers block by block, and {step.by.name} learns of all; take `dense`")


def _counts(context: Context, step: Prune, families: list[Family]) -> dict[str, int]:
    """How many groups each family keeps: what the allocator makes of the dense model's scores.

    Where every block loses the same share it does not depend on scores, so the dense model is not run for it.
    """
    if step.allocate.name == "uniform" and step.budget.verb == "remove":
        masks = allocate(
            context.source.graph,
            families,
            {family.name: np.zeros(family.size) for family in families},
            allocator=allocators.get(step.allocate.name),
            arguments=step.allocate.arguments,
            remove=step.budget.share,
            round=step.round,
            widths=step.widths,
        )
    else:
        stats = context.collect(wants(context.source, step, families, decide=True))
        masks = decide(context, step, families, stats).kept
    return distributed.agreed({name: int(mask.sum()) for name, mask in masks.items()})


class Sequence:
    """Scores and masks one block at a time while calibration streams through the model.

    `kept` fills up with family name → bool `[size]`, `saliency` with the share of it that stays. `chosen`: how many
    groups of each family stay, those of a family without a number all do; or the masks themselves.
    """

    def __init__(
        self,
        context: Context,
        step: Prune,
        families: list[Family],
        chosen: Mapping[str, int] | Mapping[str, np.ndarray],
    ) -> None:
        self.source, self.step, self.context = context.source, step, context
        self.families, self._chosen = families, chosen
        self._learned: Learned | None = None
        if not all(isinstance(mask, np.ndarray) for mask in chosen.values()):
            self._learned = distributed.agreed(
                learned_of(context, step, families, {}) if distributed.rank() == 0 else None
            )
        self.kept: dict[str, np.ndarray] = {}
        self.saliency: Saliency = {}

    def collect(self, needs: Needs) -> Stats:
        """Run the calibration; each block is pruned, and repaired, as soon as its own statistics are there.

        Returns them, for the cut. Raises what `calibrate.collect` raises.
        """

        def change(block: str, module: nn.Module, stats: Stats) -> None:
            chosen = self._choose(block, stats)
            self.kept |= chosen
            prune_block(self.source, block, module, chosen, bound_repair(self.step, stats))

        source, device = self.source, self.context.device
        return collect(
            source.checkpoint,
            source.graph,
            needs.statistics,
            self.context.batches,
            families=needs.families,
            change=change,
            device=device,
        )

    def _choose(self, block: str, stats: Stats) -> dict[str, np.ndarray]:
        place = self.source.graph.blocks.index(block)
        own = [family for family in self.families if family.layer == place]
        masks = {f.name: self._chosen[f.name] for f in own if f.name in self._chosen}
        if all(isinstance(mask, np.ndarray) for mask in masks.values()):
            return masks  # pyright: ignore[reportReturnType]
        scores = score(
            self.source.graph,
            own,
            criteria.get(self.step.by.name),
            stats,
            self.source.weights.read,
            arguments=self.step.by.arguments,
            reduce=self.step.reduce,
            seed=self.context.recipe.seed,
            learned=self._learned,
        )
        chosen = {}
        for name, count in masks.items():
            values = scores[name]
            mask = np.zeros(len(values), bool)
            mask[ranking(self.source.graph.families[name], values)[:count]] = True
            if not mask.all():
                chosen[name] = mask
        self.saliency |= saliency_kept(own, scores, chosen)
        return chosen
