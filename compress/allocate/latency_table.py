"""Latency as a measure for `allocate`: seconds of the projections at candidate widths, measured on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median

import numpy as np

from compress.graph.families import Family, Graph
from compress.graph.layout import Layout, kept_size
from compress.graph.layout import families as named

Shape = tuple[int, ...]


def time_layers(shapes: tuple[Shape, ...], device: str, tokens: int, repeats: int) -> float:
    """Median seconds of one pass of `tokens` rows through linear layers of these `(out, in)` shapes."""
    import torch

    if not shapes:
        return 0.0
    layers = [torch.nn.Linear(inner, outer, bias=False, device=device) for outer, inner in shapes]
    rows = [torch.randn(tokens, inner, device=device) for _, inner in shapes]
    taken = []
    with torch.inference_mode():
        for run in range(repeats + 1):
            start = time.perf_counter()
            for layer, x in zip(layers, rows, strict=True):
                layer(x)
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            if run:  # the first warms up
                taken.append(time.perf_counter() - start)
    return median(taken)


@dataclass
class LatencyTable:
    """Seconds that the projections of all blocks take for `tokens` tokens, as a function of what is kept.

    Each family's matrices are timed as a stack of linear layers at `points` widths (median of `repeats` runs), and
    lines are drawn in between; savings of different families of a block add up. Blocks of equal shape are timed once.
    Attention's own products, norms and everything outside of blocks are left out. `clock(shapes, device, tokens,
    repeats)` takes the time of one stack.
    """

    graph: Graph
    families: tuple[Family, ...]
    device: str = "cpu"
    tokens: int = 512
    points: int = 6
    repeats: int = 5
    clock: Callable[[tuple[Shape, ...], str, int, int], float] = time_layers
    seconds: dict[tuple[Shape, ...], float] = field(default_factory=dict)

    def __call__(self, kept: Mapping[str, np.ndarray]) -> float:
        """Seconds per forward. Never below zero, and zero for a removed block."""
        gone = self.graph.removed_blocks(kept)
        total = {block: self._stack(block, None, {}) for block in range(len(self.graph.blocks)) if block not in gone}
        for family in self.families:
            if family.name in kept and family.kind != "layers":
                for block in total:
                    total[block] -= self._saving(block, family, int(kept[family.name].sum()))
        return sum(max(seconds, 0.0) for seconds in total.values())

    @cached_property
    def _matrices(self) -> dict[int, list[tuple[Layout, ...]]]:
        owned: dict[int, list[tuple[Layout, ...]]] = {}
        for tensor, dims in self.graph.layouts.items():
            block = self.graph.block_of(tensor)
            if block is not None and len(dims) == 2:
                owned.setdefault(block, []).append(dims)
        return owned

    def _saving(self, block: int, family: Family, count: int) -> float:
        grid = np.unique(np.linspace(1, family.size, min(self.points, family.size)).round().astype(int))
        times = [self._stack(block, family.name, {family.name: int(n)}) for n in grid]
        # A wider stack is never faster; where the clock says so it is noise.
        times = np.maximum.accumulate(times)
        return float(times[-1] - np.interp(count, grid, times))

    def _stack(self, block: int, family: str | None, sizes: Mapping[str, int]) -> float:
        """Seconds of the block's matrices, of those that `family` runs through if given."""
        shapes = [
            tuple(kept_size(dim, sizes) for dim in dims)
            for dims in self._matrices.get(block, ())
            if family is None or any(family in named(dim) for dim in dims)
        ]
        key = tuple(sorted(shapes))
        if key not in self.seconds:
            self.seconds[key] = self.clock(key, self.device, self.tokens, self.repeats)
        return self.seconds[key]
