"""Tensors out of nothing: equal everywhere (free axes), or different at each index (pinned axes)."""

from __future__ import annotations

from torch import Tensor
from torch.utils._pytree import tree_leaves

from compress.graph.axes import Node
from compress.graph.record import Recorder, pinned, rule


@rule(
    "full",
    "zeros",
    "ones",
    "empty",
    "scalar_tensor",
    "new_full",
    "new_zeros",
    "new_ones",
    "new_empty",
    "empty_strided",
    "new_empty_strided",
    "full_like",
    "zeros_like",
    "ones_like",
    "empty_like",
    "fill",
    "zero",
    "empty_permuted",
)
def constant(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    recorder.bind(output, [Node(n) for n in output.shape])


@rule("arange", "linspace", "logspace", "eye", "tril_indices", "triu_indices", "randperm")
def counted(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    recorder.bind(output, pinned(output.shape, "numbers that the model counts out (arange) are indexed by it"))


@rule("rand", "randn", "randint", "rand_like", "randn_like", "normal", "uniform")
def sampled(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    recorder.bind(output, [Node(n) for n in output.shape])


@rule("tril", "triu")
def triangle(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    dims = list(recorder.dims(args[0]))
    for dim in dims[-2:]:
        dim.pin("a triangle is cut from it")
    recorder.bind(output, dims)


@rule("_assert_async", "sym_size", "is_same_size")
def nothing(recorder: Recorder, op, args, kwargs, output) -> None:
    for result in tree_leaves(output):
        if isinstance(result, Tensor):
            recorder.bind(result, [Node(n) for n in result.shape])
