"""Convolutions: samples pass; channels and pixels stay whole."""

from __future__ import annotations

from torch import Tensor

from compress.graph.axes import unify
from compress.graph.record import Recorder, pinned, rule

WHOLE = "the channels of convolutions are not pruned by this version"


@rule("convolution")
def convolution(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    """Input `[samples, in, *pixels]` by weight `[out, in / groups, *kernel]` → `[samples, out, *pixels]`."""
    given, weight, bias = (None if x is None else recorder.dims(x) for x in args[:3])
    assert given is not None and weight is not None
    if transposed := args[6]:
        weight = [weight[1], weight[0], *weight[2:]]
    made = [given[0], *pinned(output.shape[1:], WHOLE)]
    for node in [*given[1:], *weight]:
        node.pin(WHOLE)
    if bias is not None:
        unify(bias[0], made[1])
    pixels = given[2:] if transposed else made[2:]  # each of them is multiplied by the whole kernel
    recorder.products.append(((made[0], *pixels, *weight), recorder.block))
    recorder.bind(output, made)
