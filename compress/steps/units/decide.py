"""One step's decision: what calibration must gather, what the criterion makes of it, what the allocator keeps."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from compress.allocate.costs import Measure
from compress.allocate.spend import allocate
from compress.console import warn
from compress.errors import BudgetError, InputError
from compress.execution.baseline import latency_table
from compress.execution.context import Context, Needs
from compress.graph.families import Family, Graph
from compress.graph.projection import repairable
from compress.graph.routers import experts_module
from compress.model.model import Model
from compress.output_format.find import NO_REPAIR
from compress.recipe.prune import Prune
from compress.registry import allocators, criteria, repairs
from compress.score.learning import Learned, learn
from compress.score.score import needed, score, statistics_of
from compress.score.views import Stats
from compress.steps.units import merge as merging
from compress.steps.units.saliency import Saliency, saliency_kept
from compress.steps.units.trials import CutTrials, needs_of
from compress.surgery.cut import Repair


def families_of(graph: Graph, step: Prune) -> list[Family]:
    """The families that the step may prune.

    Raises BudgetError, saying why the others may not be, when there are none; a kind that is missing among others is
    warned of.
    """
    whole = graph.layers(step.skip_layers)
    for glob in step.skip:
        if not any(_matches(family, glob) for family in graph.families.values()):
            raise InputError(f"skip: {glob!r} is the name of no family or tensor; `compress inspect` lists them")
    found: list[Family] = []
    for kind in step.prune:
        free = [
            family
            for family in graph.of_kind(kind)
            if (family.layer is None or family.layer not in whole)
            and not any(_matches(family, glob) for glob in step.skip)
        ]
        if not free:
            warn_or_raise(graph, kind, last=kind == step.prune[-1] and not found)
        found += free
    return found


def warn_or_raise(graph: Graph, kind: str, *, last: bool) -> None:
    """Say why no family of the kind is free."""
    pinned = [family for family in graph.families.values() if family.kind == kind]
    if pinned and pinned[0].pinned:
        why = f"the model's {kind} cannot be pruned: {pinned[0].pinned}"
    elif pinned:
        why = f"every family of {kind} is skipped"
    else:
        free = sorted({family.kind for family in graph.families.values() if family.pinned is None} - {"vocab", "other"})
        why = f"the model has no {kind} to prune (it has {', '.join(free) or 'nothing that can be'})"
    if last:
        raise BudgetError(f"nothing can be removed: {why}")
    warn(why)


def wants(source: Model, step: Prune, families: list[Family], *, decide: bool) -> Needs:
    """What the repair needs and, with `decide`, the criterion and the allocator."""
    graph, wanted = source.graph, dict[str, set[str]]()
    if decide:
        wanted = needed(graph, families, criteria.get(step.by.name), step.by.arguments)
        for name in statistics_of(allocators.get(step.allocate.name), step.allocate.arguments):
            wanted.setdefault(name, set()).update(graph.blocks)
        if allocators.get(step.allocate.name).meta.measures:
            for name, keys in needs_of(source, families).items():
                wanted.setdefault(name, set()).update(keys)
        experts = {experts_module(graph, family) for family in families if family.kind == "experts"}
        wanted |= {name: wanted.get(name, set()) | experts for name in merging.needs(step)}
    if step.repair is not None:
        weights = {
            member.tensor
            for family in families
            if family.kind not in NO_REPAIR
            for member in family.members
            if repairable(graph, member)
        }
        if not weights:
            raise InputError(f"repair: {step.repair} makes up for what reads heads or channels; this step removes none")
        for name in statistics_of(repairs.get(step.repair.name), step.repair.arguments):
            wanted.setdefault(name, set()).update(weights)
    found = {name: keys for name, keys in wanted.items() if keys}
    return Needs(found, tuple(family.name for family in families))


def reads_text(step: Prune, *, decide: bool) -> bool:
    """Whether any of the step's parts asks for a statistic, as `wants` has it of a model."""
    asked = [] if step.repair is None else [*statistics_of(repairs.get(step.repair.name), step.repair.arguments)]
    if decide:
        asked += statistics_of(criteria.get(step.by.name), step.by.arguments)
        asked += statistics_of(allocators.get(step.allocate.name), step.allocate.arguments)
        asked += merging.needs(step)
        asked += ["trials"] if allocators.get(step.allocate.name).meta.measures else []
    return bool(asked)


class Decided(NamedTuple):
    """What each family keeps, family name → bool `[size]`; the matrices `[kept, size]` that merge its experts; and the
    share of its saliency that stays."""

    kept: dict[str, np.ndarray]
    mixes: dict[str, np.ndarray]
    saliency: Saliency


def decide(context: Context, step: Prune, families: list[Family], stats: Stats) -> Decided:
    """What goes and what stays. Raises BudgetError where the budget cannot be met."""
    source = context.source
    learned = learned_of(context, step, families, stats)
    scores = score(
        source.graph,
        families,
        criteria.get(step.by.name),
        stats,
        source.weights.read,
        arguments=step.by.arguments,
        reduce=step.reduce,
        normalize=allocators.get(step.allocate.name).meta.normalize,
        seed=context.recipe.seed,
        clusters=step.clusters,
        learned=learned,
    )
    own = {name: values.copy() for name, values in scores.items()}  # layers that are spared get others
    kept = spend(context, step, families, scores, stats)
    if criteria.get(step.by.name).meta.scope.makes_clusters:
        return Decided(*merging.select_and_merge_experts(source, step, families, kept, stats), {})
    return Decided(kept, {}, saliency_kept(families, own, kept))


def learned_of(context: Context, step: Prune, families: list[Family], stats: Stats) -> Learned | None:
    """What the criterion learns of all `families` before it scores any; None for one that learns nothing."""
    source, criterion = context.source, criteria.get(step.by.name)
    if not criterion.meta.scope.learns:
        return None
    needs = statistics_of(criterion, step.by.arguments)
    return learn(
        source.graph,
        families,
        criterion,
        stats,
        source.weights.read,
        arguments=step.by.arguments,
        seed=context.recipe.seed,
        model=None if source.checkpoint.architecture is not None else source.checkpoint.digest,
        data=context.data_key if needs else "",
    )


def spend(
    context: Context, step: Prune, families: list[Family], scores: dict[str, np.ndarray], stats: Stats
) -> dict[str, np.ndarray]:
    """What the families that lose groups keep by these `scores`, family name → bool `[size]`.

    Raises BudgetError where the budget cannot be met.
    """
    graph, original, allocator = context.source.graph, context.original, allocators.get(step.allocate.name)
    spared = _spare_layers(graph, families, scores, step)
    budget, target, measure = step.budget, None, "params"
    if budget.verb == "until":
        target = original.params * (1 - budget.share)
    elif budget.verb == "keep":
        measure = budget.measure or "params"
        target = getattr(original, measure) * budget.share
    counted: Measure = (
        latency_table(graph, families, original.device, original.tokens) if measure == "latency" else measure  # pyright: ignore[reportAssignmentType]
    )
    trials = None
    if allocator.meta.measures:
        trials = CutTrials(context, scores, stats, step, bound_repair(step, stats))
    kept = allocate(
        graph,
        families,
        scores,
        allocator=allocator,
        arguments=step.allocate.arguments,
        target=target,
        remove=budget.share if target is None else None,
        measure=counted,
        sequence=original.tokens,
        round=step.round,
        widths=step.widths,
        stats=stats,
        trials=trials,
    )
    kept = {name: mask for name, mask in kept.items() if not mask.all()}
    if not kept:
        raise BudgetError("nothing would be removed: the budget is smaller than the smallest group; ask for more")
    for name, indices in spared.items():
        if name in kept and not kept[name][indices].all():
            raise BudgetError(f"{name}: the budget cannot be met without the layers that skip_layers spares")
    return kept


def bound_repair(step: Prune, stats: Stats) -> Repair | None:
    """The step's repair with its statistics filled in."""
    if step.repair is None:
        return None
    entry = repairs.get(step.repair.name)
    bound, names = entry.bind(step.repair.arguments), statistics_of(entry, step.repair.arguments)

    def repair(name: str, weight: Tensor, bias: Tensor | None, keep: Tensor) -> tuple[Tensor, Tensor | None]:
        if keep.all():
            return weight, bias
        given: list[Any] = [stats[statistic][name].to(torch.float32) for statistic in names]
        if weight.dim() == 2:
            return bound(weight, bias, keep, *given)
        biases = [None] * len(weight) if bias is None else bias.view(len(weight), -1)
        made = [bound(one, own, keep, *rest) for one, own, *rest in zip(weight, biases, *given, strict=True)]
        vectors = [vector for _, vector in made if vector is not None]
        return torch.stack([matrix for matrix, _ in made]), torch.cat(vectors) if vectors else None

    return repair


def adds_bias(step: Prune) -> bool:
    """Whether the repair gives a bias to weights without one."""
    return step.repair is not None and repairs.get(step.repair.name).meta.adds_bias


def _matches(family: Family, glob: str) -> bool:
    return fnmatch(family.name, glob) or any(fnmatch(member.tensor, glob) for member in family.members)


def _spare_layers(
    graph: Graph, families: list[Family], scores: dict[str, np.ndarray], step: Prune
) -> dict[str, np.ndarray]:
    """Whole layers named by `skip_layers` get the best scores of all; returns their places."""
    total, spared = len(graph.blocks), dict[str, np.ndarray]()
    whole = {graph.blocks[index % total] for index in step.skip_layers}
    for family in families:
        if family.kind == "layers" and whole & set(family.blocks):
            values = scores[family.name]
            spared[family.name] = np.array([i for i, block in enumerate(family.blocks) if block in whole])
            values[spared[family.name]] = values.max() + 10 * max(float(np.ptp(values)), 1.0)
    return spared
