"""Collect: the statistics that are asked for and not yet known, in as few passes over the model as possible."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.calibrate import distributed
from compress.calibrate.cache import Stats, statistics_folder
from compress.calibrate.gather import Gather
from compress.calibrate.objective import LOSS
from compress.calibrate.site import at_sites, by_objective
from compress.calibrate.tape import Tape
from compress.calibrate.token_weights import key_of_weights
from compress.checkpoint.open import Checkpoint
from compress.console import task
from compress.errors import InputError, ModelError
from compress.graph.families import Graph
from compress.graph.layout import unit_index
from compress.graph.projection import projection
from compress.inputs.batch import LABELS, TOKEN_WEIGHT, Batch, leading, rows, samples
from compress.inputs.choose import inputs_of
from compress.model.weights import Weights, runnable_model
from compress.registry import statistics
from compress.stream.stream import Stream, StreamCallbacks

__all__ = ["Change", "Stats", "collect"]

TAPE_BYTES = 4_000_000_000
"""What the way back may keep of all samples; more samples are run in several rounds."""

PREFERRED = ("heads", "channels", "queries", "head_dim", "experts", "hidden")

Change = Callable[[str, nn.Module, Stats], None]


def collect(
    checkpoint: Checkpoint,
    graph: Graph,
    needs: Mapping[str, Iterable[str]],
    batches: list[Batch],
    *,
    data_key: str | None = None,
    families: Iterable[str] | None = None,
    change: Change | None = None,
    inside: bool = False,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    tape_bytes: int = TAPE_BYTES,
    gradients: int | None = None,
) -> Stats:
    """Gather `needs` (statistic → names of weights or blocks) over `batches`, of any inputs.

    With a `data_key` (from `batches`) results are kept on disk, and what is there is not gathered again. `families` are
    the names of those about to lose groups: they define the units of `projection`. A batch's `token_weight` `[batch,
    length]` says how much each token counts in all that is gathered, without one each counts 1; an encoder and a
    decoder of the same length are weighed alike. `change(block, module, stats)` may change a loaded block's weights
    once its statistics are there; later blocks then see what it gives, and nothing is kept on disk. With `inside` it is
    called with one projection after another instead, so that the later ones of a block see it too; blocks with stacked
    experts are changed as a whole all the same. Computed in `dtype`: by default the stored one, but float32 on the CPU.
    The first `gradients` samples are run backwards, where statistics ask for it; by default all.
    With several processes (see `distributed`) each runs its share of the samples, and all get the results.

    Raises ModelError for statistics that a tensor cannot have, InputError for bad weights or too few samples.
    """
    distributed.start()
    needs = {name: set(keys) for name, keys in needs.items()}
    dtype = dtype or compute_dtype(checkpoint, torch.device(device))
    units = {key: _units(graph, key, families) for key in needs.get("projection", ())}
    tags = {("projection", key): family for key, (family, _) in units.items()}
    if gradients is not None and gradients < sum(rows(batch) for batch in batches):
        tags |= {(name, key): f"first {gradients}" for name in at_sites(needs, backward=True) for key in needs[name]}
    kept = data_key is not None and change is None
    described = f"{data_key} {dtype}{key_of_weights(batches)}"
    stats = Stats(statistics_folder(checkpoint.digest, described) if kept else None, tags)
    # What the first process finds on disk holds for all: one that looks later might find more.
    known = distributed.agreed({name: stats.find(name, keys) for name, keys in needs.items()})
    wanted = {name: keys - known[name] for name, keys in needs.items() if keys - known[name]}
    if wanted or change is not None:

        def done(statistic: str, key: str, value: Tensor) -> None:
            if not kept or distributed.rank() == 0:
                stats.put(statistic, key, value)

        places = {key: positions for key, (_, positions) in units.items()}
        options = {"dtype": dtype, "device": device}
        stations = _projections(graph, needs) if inside else {}
        data = batches, leading(batches, gradients)
        _passes(checkpoint, graph, wanted, data, done, places, change, stats, tape_bytes, options, stations)
        distributed.agreed(None)  # the first process has written everything
    if kept and distributed.rank() > 0:
        for name, keys in needs.items():
            if keys - stats.find(name, keys):
                raise InputError(f"{stats.folder}: COMPRESS_CACHE must be a folder that all processes share")
    return stats


def _passes(
    checkpoint: Checkpoint,
    graph: Graph,
    wanted: Mapping[str, set[str]],
    data: tuple[list[Batch], list[Batch]],
    done: Callable[[str, str, Tensor], None],
    places: Mapping[str, list[Tensor]],
    change: Change | None,
    stats: Stats,
    tape_bytes: int,
    options: dict[str, Any],
    stations: Mapping[str, frozenset[str]],
) -> None:
    """One forward of the first batches of `data` for everything but gradients, then one there and back of the second
    for each objective that these are of."""
    batches, differentiated = data
    model = runnable_model(checkpoint, options["dtype"])
    weights = Weights(checkpoint, model)
    sequences = sum(rows(batch) for batch in batches)
    backward = {name: wanted[name] for name in at_sites(wanted, backward=True)}
    forward = {name: keys for name, keys in wanted.items() if name not in backward}
    if forward or change is not None:
        with (
            Gather(model, weights, forward, sequences, done, places, frozenset().union(*stations.values())) as gather,
            task("calibrating", len(set(graph.blocks))) as advance,
        ):
            callbacks = _watch(gather, weights, graph, change, stats, advance, stations)
            Stream(model, weights, graph.blocks, callbacks, **options).run(distributed.share(batches))
            gather.finalize(*gather.pending)
    if not backward:
        return
    sequences, own = sum(rows(batch) for batch in differentiated), distributed.share(differentiated)
    for objective, some in by_objective(backward).items():
        with (
            Gather(model, weights, some, sequences, done) as gather,
            task("differentiating") as advance,
        ):
            per_sample = any("fisher" in statistics.get(name).meta.sums for name in some)
            apart = [
                one
                for batch in own
                for one in (samples(batch) if per_sample or objective is not LOSS or _alike(batch) else [batch])
            ]
            rounds = _rounds(apart, graph, weights, gather.gradients if per_sample else set(), tape_bytes)
            for i, part in enumerate(rounds):
                how = {"objective": objective, "per_sample": per_sample, "final": i == len(rounds) - 1}
                Tape(model, weights, graph.blocks, gather, **how, **options).run(part)
                advance()
            gather.finalize(*gather.pending)


def _alike(batch: Batch) -> bool:
    """Whether all samples count the same in the batch's mean loss, so that it is the mean of theirs: they are then run
    one by one, as the logits of a large vocabulary are there several times on the way back."""
    said = [value for name, value in batch.items() if name.startswith(LABELS) or "mask" in name]
    return TOKEN_WEIGHT not in batch and all(value.dim() < 2 for value in said)


def _watch(
    gather: Gather,
    weights: Weights,
    graph: Graph,
    change: Change | None,
    stats: Stats,
    advance: Callable[..., None],
    stations: Mapping[str, frozenset[str]],
) -> StreamCallbacks:
    once = _once(graph, weights)
    inside = {block: {*weights.names(block), block} for block in graph.blocks}

    def leave(block: str) -> None:
        if once:  # a block that comes again is not done
            own = (key for key in gather.pending if key in inside[block] or key.startswith(block + "."))
            gather.finalize(*own)
        advance()

    def changed(where: str, module: nn.Module) -> None:
        assert change is not None
        change(where, module, stats)

    return StreamCallbacks(
        gather.visit,
        leave,
        changed if change is not None else None,
        pause=gather.pause,
        turn=gather.turn,
        arrive=lambda place, module, given: gather.together(f"{place}.weight", module, given),
        inside=stations,
    )


def _projections(graph: Graph, needs: Mapping[str, set[str]]) -> dict[str, frozenset[str]]:
    """Block → the modules whose inputs are gathered, where all of them are plain projections run once."""
    keys = {key for name in at_sites(needs, waits=True) for key in needs[name]}
    found = {}
    for block in dict.fromkeys(graph.blocks):
        own = [key for key in keys if key.startswith(block + ".")]
        if own and all(len(graph.layouts[key]) == 2 for key in own):
            found[block] = frozenset(key.rpartition(".")[0] for key in own)
    return found


def compute_dtype(checkpoint: Checkpoint, device: torch.device) -> torch.dtype:
    """What to compute in: half precision is slow and coarse on a processor."""
    stored = max(checkpoint.tensors.values(), key=lambda spec: spec.bytes).dtype
    return torch.float32 if device.type == "cpu" or not stored.is_floating_point else stored


def _units(graph: Graph, key: str, families: Iterable[str] | None) -> tuple[str, list[Tensor]]:
    """The family whose groups are the units of a projection, and the input positions of each."""
    inputs = [
        (family, member.dim)
        for family in graph.families.values()
        for member in family.members
        if member.tensor == key and member.role == "in"
    ]
    chosen = [(family, dim) for family, dim in inputs if families is None or family.name in set(families)]
    if not chosen:
        raise ModelError(f"{key}: no family of groups runs along its input, so it has no units to project")
    rank = {kind: i for i, kind in enumerate(PREFERRED)}
    family, dim = min(chosen, key=lambda item: rank.get(item[0].kind, len(rank)))
    units = projection(graph, key, dim).spread(unit_index(graph.layouts[key][dim], family.name))
    return family.name, [torch.from_numpy(np.flatnonzero(units == i)) for i in range(family.size)]


def _rounds(batches: list[Batch], graph: Graph, weights: Weights, waiting: set[str], limit: int) -> list[list[Batch]]:
    """Batches in rounds that keep at most `limit` bytes: blocks' inputs, and those of `waiting` gradients (per sample)
    that are not whole before the round ends."""
    blocks = set(graph.blocks)
    once = {name for block in blocks for name in weights.names(block)} if _once(graph, weights) else set()
    inputs = inputs_of(weights.model)
    visits = max(len(graph.blocks), getattr(inputs.tower, "num_hidden_layers", None) or 0)
    width = max((_width(weights, block) for block in blocks), default=0)
    late = sum(weights.current(name).numel() for name in waiting - once)
    rounds: list[list[Batch]] = [[]]
    filled = 0
    for batch in batches:
        size = 4 * (visits * rows(batch) * inputs.length(batch) * width + late)
        if rounds[-1] and filled + size > limit:
            rounds.append([])
            filled = 0
        rounds[-1].append(batch)
        filled += size
    return rounds


def _width(weights: Weights, block: str) -> int:
    """How wide what flows through a block is: the size that most of its tensors' dimensions have."""
    sizes = Counter(size for name in weights.names(block) for size in weights.current(name).shape)
    return max(sizes, key=lambda size: (sizes[size], size), default=0)


def _once(graph: Graph, weights: Weights) -> bool:
    """Whether no block is executed twice (as ALBERT's are)."""
    layers = getattr(inputs_of(weights.model).tower, "num_hidden_layers", None) or 0
    return len(set(graph.blocks)) == len(graph.blocks) >= layers
