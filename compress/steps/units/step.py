"""Removing whole units: heads, channels, experts, layers."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

from compress.errors import BudgetError
from compress.execution.context import Context, Needs
from compress.graph.families import Family
from compress.output_format.find import find_output_format
from compress.recipe.prune import Prune
from compress.registry import allocators, steps
from compress.score.score import statistics_of
from compress.score.views import Stats
from compress.steps.kind import Decision, ModelStep
from compress.steps.units.align import align
from compress.steps.units.decide import Decided, adds_bias, bound_repair, decide, families_of, reads_text, spend, wants
from compress.steps.units.in_sequence import check, in_sequence
from compress.steps.units.masks import listed, masks, mixes, opposite_scores, shares
from compress.surgery.claims.masked import EqualToMasked, FiniteOnly
from compress.surgery.cut import cut, output_specs
from compress.surgery.edit import Edit, Put


class Gathered(NamedTuple):
    """The families that may lose groups, the statistics of them, and what was decided where blocks are decided as
    they are calibrated."""

    families: list[Family]
    stats: Stats
    decided: Decided | None = None


@steps.add("prune")
class PruneUnits(ModelStep):
    """Remove whole units of some kinds."""

    settings, verb = Prune, "prune"
    writing = "cut"
    unforeseen = "how many units each layer keeps depends on scores; with `allocate: uniform` and `widths: uniform` not"
    step: Prune

    def needs(self, context: Context) -> Needs:
        """Nothing where blocks are calibrated one after the other on what the pruned ones give."""
        if self.step.propagate == "pruned":
            return Needs()
        return wants(context.source, self.step, families_of(context.source.graph, self.step), decide=True)

    def calibrates(self, *, given: bool) -> bool:
        return self.step.propagate == "pruned" or reads_text(self.step, decide=not given)

    def gather(self, context: Context, given: Decision | None) -> Gathered:
        graph, step = context.source.graph, self.step
        families = families_of(graph, step)
        if step.propagate == "pruned":
            decided, stats = in_sequence(
                context, step, families, None if given is None else masks(graph, given["kept"])
            )
            return Gathered(families, stats, decided)
        stats = context.collect(wants(context.source, step, families, decide=given is None))
        if given is None and allocators.get(step.allocate.name).meta.measures:  # every process runs its samples
            return Gathered(families, stats, decide(context, step, families, stats))
        return Gathered(families, stats)

    def decide(self, context: Context, gathered: Gathered) -> dict[str, Any]:
        """`kept`: family → indices of the groups that stay (families that stay whole are absent). `merged`: family of
        experts → for each that stays, the shares of the experts that it is put together of. `saliency`: family → its
        layer and the share of its saliency that is kept, where that means something."""
        made = gathered.decided or decide(context, self.step, gathered.families, gathered.stats)
        return {"kept": listed(made.kept), "merged": shares(made.mixes), "saliency": made.saliency}

    def guesses(self, context: Context) -> list[Decision]:
        """As if the first units were worth the most, and as if the last ones were, by far."""
        graph, step = context.source.graph, self.step
        families = families_of(graph, step)
        if step.propagate == "pruned":
            check(step, families)
        allocator = allocators.get(step.allocate.name)
        if allocator.meta.measures or statistics_of(allocator, step.allocate.arguments):
            return []
        found: list[Decision] = []
        failed: list[BudgetError] = []
        for scores in opposite_scores(families):
            try:
                found.append({"kept": listed(spend(context, step, families, scores, {})), "merged": {}})
            except BudgetError as error:
                failed.append(error)
        if failed and not found:
            raise failed[0]
        return [] if failed else found

    @staticmethod
    def counted(decision: Decision) -> Decision:
        """`counts`: family → how many groups stay."""
        return {"counts": {name: len(kept) for name, kept in decision["kept"].items()}}

    def edit(self, context: Context, decision: Decision, gathered: Gathered) -> Edit:
        source, step = context.source, self.step
        kept, merged = masks(source.graph, decision["kept"]), mixes(source.graph, decision["merged"])
        output_format = find_output_format(source, kept, adds_bias=adds_bias(step), widths=step.widths)
        specs = output_specs(source, kept, output_format, merged)

        def produce(put: Put) -> None:
            orders = align(source, kept, merged) if step.align else None
            repair = bound_repair(step, gathered.stats)
            cut(source, kept, output_format, specs, put, repair=repair, mixes=merged, orders=orders)

        if any((family := source.graph.families[name]).kind == "hidden" and family.averaged for name in kept):
            # A norm averages over fewer channels then, which no mask imitates.
            claim = FiniteOnly(kept, "a narrower residual stream has no masked equal")
        else:
            claim = EqualToMasked(
                kept, biases=tuple(output_format.biases), repaired=step.repair is not None, mixes=merged
            )
        return Edit(
            specs,
            produce,
            output_format.config,
            claim,
            output_format.described,
            changed=output_format.edits,
            kept=kept,
            parameters=sum(prod(shape) for shape in (*output_format.biases.values(), *output_format.zeros.values())),
            notes=output_format.notes,
        )

    @staticmethod
    def rows(decision: Decision) -> dict[str, str]:
        """How many groups of each kind stay in all layers together."""
        left: dict[str, int] = {}
        counts = decision.get("counts") or {name: len(kept) for name, kept in decision["kept"].items()}
        for name, count in counts.items():
            kind = name.rpartition(".")[2]
            left[kind] = left.get(kind, 0) + count
        return {f"{kind} kept": str(total) for kind, total in left.items()}
