"""Two files in ONNX Runtime beside each other, where nothing of torch can help or harm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from compress.errors import VerifyError
from compress.graph.families import Graph
from compress.graph.layout import families, keep_mask
from compress.onnx.session import Arrays, Session
from compress.onnx_model.architecture import OnnxArchitecture
from compress.onnx_model.examples import Sizes, examples
from compress.onnx_model.module import OnnxModule

SHAPES = ((2, 0), (3, 5), (1, -3))
"""Samples, and how many positions more than those of the trace each has, where the file leaves them open."""

TOLERANCE = 1e-4
"""The largest difference that passes, as a share of the largest value: kernels sum wider rows in another order."""

SMALL = 1e-2
"""Values are no smaller in this comparison: behind a sigmoid near zero rounding is all there is."""


def check_agreement(
    architecture: OnnxArchitecture, graph: Graph, kept: Mapping[str, np.ndarray], small: Path, masked: Path
) -> str:
    """Run `small` and `masked`, its input with the removed parts zero, on random inputs of several sizes.

    Returns what is to be said. Raises VerifyError where an output differs, or either cannot run.
    """
    one, other, worst, ran = Session(small), Session(masked), 0.0, 0
    seen = set[tuple[tuple[int, ...], ...]]()
    module, usual = OnnxModule(architecture.file, device="meta"), architecture.sizes
    for seed, (rows, more) in enumerate(SHAPES):
        sizes = Sizes(usual.length + more, usual.pixels)
        given = {name: value.numpy() for name, value in examples(module, sizes, rows=rows, seed=seed).items()}
        shapes = tuple(value.shape for value in given.values())
        if shapes in seen:
            continue
        seen.add(shapes)
        try:
            wanted = other(given)
        except Exception as error:  # a graph may not take these sizes, and then the input does not either
            if ran or seed + 1 < len(SHAPES):
                continue
            raise VerifyError(f"ONNX Runtime cannot run {masked.name}: {_line(error)}") from error
        try:
            found = one(_taken(graph, given, kept))
        except Exception as error:
            raise VerifyError(f"ONNX Runtime runs the input, but not what is left of it: {_line(error)}") from error
        worst, ran = max(worst, _apart(found, _taken(graph, wanted, kept))), ran + 1
        if not worst <= TOLERANCE:
            raise VerifyError(
                f"in ONNX Runtime the result differs from the masked input by {worst:.1e} of its largest value "
                f"(at most {TOLERANCE:g} is right)"
            )
    return f"ONNX Runtime: equal to the masked input to {worst:.0e} at {ran} {'size' if ran == 1 else 'sizes'}"


def _taken(graph: Graph, arrays: Mapping[str, np.ndarray], kept: Mapping[str, np.ndarray]) -> Arrays:
    """What is left of values whose widths follow the model's: caches."""
    found = dict(arrays)
    for name, value in arrays.items():
        for dim, layout in enumerate(graph.values.get(name, ())):
            if any(family in kept for family in families(layout)):
                value = value.compress(keep_mask(layout, kept), dim)
        found[name] = value
    return found


def _apart(found: Arrays, wanted: Arrays) -> float:
    worst = 0.0
    for name, value in wanted.items():
        if found[name].shape != value.shape:
            raise VerifyError(f"{name} is {list(found[name].shape)}, the masked input's {list(value.shape)}")
        if value.dtype.kind == "f" and value.size:
            off = np.abs(found[name].astype(np.float64) - value.astype(np.float64)).max()
            worst = max(worst, float(off / max(np.abs(value).max(), SMALL)))
    return worst


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
