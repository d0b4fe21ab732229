"""How far the output of a model moves when groups go: measured by forwards, many cuts at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from compress.calibrate import distributed
from compress.calibrate.collect import compute_dtype
from compress.damage.block import Kept, pruned_block
from compress.errors import InputError
from compress.inputs.batch import Batch
from compress.model.model import Model
from compress.model.weights import Weights, runnable_model
from compress.stream.variants import Variant, Variants
from compress.surgery.cut import Repair
from compress.tasks.asked import asked

MASK = "attention_mask"


class Cut(NamedTuple):
    """What is `kept`, family → bool `[size]`, and how what reads a family that loses groups is repaired."""

    kept: Kept
    repair: Repair | None = None


def divergences(
    source: Model,
    batches: Sequence[Batch],
    cuts: Sequence[Cut],
    *,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """Mean over all positions of `Task.distance` between the model's output and that with each cut, `[cuts]`.

    One pass of the model, a block in memory at a time: a cut costs the blocks from the first one on that it changes,
    and memory for one hidden state a position. With several processes each runs its share of the samples.

    Raises InputError for families that span blocks (all but layers), and what `Task.distance` does.
    """
    model = runnable_model(source.checkpoint, dtype := compute_dtype(source.checkpoint, torch.device(device)))
    sums = torch.zeros(len(cuts) + 1, dtype=torch.float64)  # the last one counts the positions

    def compared(number: int, output: Any, other: Any, batch: Batch) -> None:
        counted = _counted(source.task.distance(output, other).double(), batch)
        sums[number] += counted.sum().cpu()
        if number == 0:
            sums[-1] += counted.numel()

    with torch.no_grad():
        Variants(
            model,
            Weights(source.checkpoint, model),
            source.graph.blocks,
            variants=[_variant(source, model, cut) for cut in cuts],
            compared=compared,
            dtype=dtype,
            device=device,
            forward=asked(model, source.task.asks),
        ).run(distributed.share(list(batches)))
    sums = distributed.summed(sums)
    return (sums[:-1] / sums[-1].clamp(min=1)).numpy()


def _variant(source: Model, model: torch.nn.Module, cut: Cut) -> Variant:
    """The model with the cut."""
    graph, own = source.graph, dict[str, dict[str, np.ndarray]]()
    for name, mask in cut.kept.items():
        family = graph.families[name]
        if family.kind == "layers" or mask.all():
            continue
        if family.layer is None:
            raise InputError(f"{name} spans several blocks, so what it costs is not measured block by block")
        own.setdefault(graph.blocks[family.layer], {})[name] = mask
    gone = frozenset(graph.blocks[i] for i in graph.removed_blocks(cut.kept))

    def inside(block: str, module: torch.nn.Module) -> Any:
        return pruned_block(source, model, block, own[block], cut.repair)

    return Variant(frozenset(own) - gone, inside, gone)


def _counted(distance: Tensor, batch: Batch) -> Tensor:
    """The distances of the positions that are no padding."""
    mask = batch.get(MASK)
    if mask is None or mask.shape != distance.shape:
        return distance.flatten()
    return distance[mask.bool()]
