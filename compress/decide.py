"""Deciding one step: which groups go, by statistics, scores and a budget. Nothing is written here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import torch
from torch import nn
from transformers import PretrainedConfig

from compress.allocate.spend import allocate
from compress.calibrate.cache import Stats
from compress.calibrate.collect import collect
from compress.calibrate.data import batches, load_tokenizer
from compress.checkpoint.model import empty_model, load_config, model_class
from compress.checkpoint.open import Checkpoint
from compress.checkpoint.weights import Weights
from compress.console import detail
from compress.errors import BudgetError, InputError
from compress.graph.families import Family, Graph
from compress.graph.trace import trace
from compress.recipe import Part, Prune, Recipe
from compress.registry import Entry, allocators, criteria, repairs
from compress.score import needed, score, statistics_of
from compress.surgery.cut import Cut, Mend

BLOCK = "block_"  # statistics of whole blocks have names that begin so


@dataclass(frozen=True)
class Model:
    """A checkpoint and what its architecture tells without reading a weight."""

    checkpoint: Checkpoint
    config: PretrainedConfig
    cls: type[nn.Module]
    graph: Graph
    weights: Weights

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Model:
        """Trace the checkpoint's architecture. Raises ModelError where it is not understood."""
        config = load_config(checkpoint)
        kind = model_class(config, checkpoint)
        empty = empty_model(config, kind)
        return cls(checkpoint, config, kind, trace(empty, config), Weights(checkpoint, empty))


@dataclass(frozen=True)
class Decision:
    """What a step removes and how it mends the rest; `stats` are those that the repair takes."""

    cut: Cut
    mend: Mend | None
    stats: Stats


def decide(model: Model, recipe: Recipe, step: Prune, original: int, device: torch.device | str = "cpu") -> Decision:
    """Choose what `step` removes from `model`; `original` are the parameters before the first step.

    Raises BudgetError where the budget cannot be met or nothing would go, InputError for what the recipe gets wrong.
    """
    graph = model.graph
    families = chosen(graph, step)
    by, spender = criteria.get(step.by.name), allocators.get(step.allocate.name)
    mend = _mend(step.repair)
    needs = needed(graph, families, by, step.by.arguments)
    for name, keys in needed(graph, families, spender, step.allocate.arguments).items():
        needs.setdefault(name, set()).update(keys)
    if mend is not None:
        for name in mend.needs:
            needs.setdefault(name, set()).update(_consumers(families))
    stats = _collected(model, recipe, step, families, needs, device)
    scores = score(
        graph,
        families,
        by,
        stats,
        model.weights.read,
        arguments=step.by.arguments,
        reduce=step.reduce,
        fine=spender.meta.get("fine"),
        seed=recipe.seed,
    )
    kept = _spent(model, recipe, step, families, scores, spender, stats, original, device)
    kept = {name: mask for name, mask in kept.items() if not mask.all()}
    if not kept:
        raise BudgetError("nothing would be removed; ask for more, or prune more kinds")
    return Decision(Cut(graph, kept), mend, stats)


def chosen(graph: Graph, step: Prune) -> list[Family]:
    """The families that a step may take groups from. Raises BudgetError when there is none, with the reasons."""
    found = [f for f in graph.of_kind(*step.prune) if not _skipped(graph, f, step)]
    for kind in step.prune:
        if not any(f.kind == kind for f in found):
            pinned = sorted({f.pinned for f in graph.families.values() if f.kind == kind and f.pinned})
            why = f"all are pinned: {'; '.join(pinned[:3])}" if pinned else "the model has none"
            if any(f.kind == kind for f in graph.of_kind(*step.prune)):
                why = "`skip` or `skip_layers` leaves none"
            raise BudgetError(f"no {kind} can be removed: {why}; `compress inspect` lists what can")
    return found


def _skipped(graph: Graph, family: Family, step: Prune) -> bool:
    count = len(graph.blocks)
    if family.layer is not None and family.layer in {i % count for i in step.skip_layers if -count <= i < count}:
        return True
    names = [family.name, *(member.tensor for member in family.members)]
    return any(fnmatchcase(name, pattern) for pattern in step.skip for name in names)


def _mend(part: Part | None) -> Mend | None:
    if part is None:
        return None
    entry = repairs.get(part.name)
    return Mend(entry.bind(part.arguments), statistics_of(entry, part.arguments), bool(entry.meta.get("adds_bias")))


def _consumers(families: list[Family]) -> set[str]:
    return {m.tensor for f in families for m in f.members if m.role == "in"}


def _collected(
    model: Model,
    recipe: Recipe,
    step: Prune,
    families: list[Family],
    needs: Mapping[str, set[str]],
    device: torch.device | str,
) -> Stats:
    if step.propagate == "pruned":
        raise InputError(
            "steps: `propagate: pruned` needs each block decided alone, before the next one runs; "
            "split the recipe into several steps, or leave it at `dense`"
        )
    if not any(needs.values()):
        return Stats(None, {})
    data, key = batches(recipe.calibrate, load_tokenizer(model.checkpoint), model.config, recipe.seed)
    detail(f"calibrating on {sum(len(b['input_ids']) for b in data)} samples")
    names = [family.name for family in families]
    return collect(model.checkpoint, model.graph, needs, data, data_key=key, families=names, device=device)


def _spent(
    model: Model,
    recipe: Recipe,
    step: Prune,
    families: list[Family],
    scores: Mapping[str, np.ndarray],
    allocator: Entry,
    stats: Stats,
    original: int,
    device: torch.device | str,
) -> dict[str, np.ndarray]:
    graph, budget = model.graph, step.budget
    measure = budget.measure or "params"
    sequence = recipe.calibrate.length
    target = remove = None
    if budget.verb == "remove":
        remove = budget.share
    elif budget.verb == "until":
        target = (1 - budget.share) * original
    elif measure == "latency":
        from compress.allocate.latency_table import LatencyTable

        measure = LatencyTable(graph, tuple(families), torch.device(device))
        target = budget.share * measure({})
    else:
        target = budget.share * (graph.parameters() if measure == "params" else graph.flops(sequence=sequence))
    return allocate(
        graph,
        families,
        scores,
        allocator=allocator,
        arguments=step.allocate.arguments,
        target=target,
        remove=remove,
        measure=measure,
        sequence=sequence,
        round=step.round,
        widths=step.widths,
        stats=stats,
    )
