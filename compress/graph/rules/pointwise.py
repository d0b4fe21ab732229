"""Element-wise operators tie the dimensions that they line up."""

from __future__ import annotations

from torch import Tensor
from torch.utils._pytree import tree_leaves

from compress.graph.axes import Node, unify
from compress.graph.record import Recorder, rule


def align(recorder: Recorder, operands: list[Tensor], shape: tuple[int, ...]) -> list[Node]:
    """The dims of a broadcast of `operands` to `shape`, ties made."""
    dims: list[Node | None] = [None] * len(shape)
    for tensor in operands:
        for place, node in enumerate(recorder.dims(tensor), len(shape) - tensor.dim()):
            if node.size != shape[place] or node.size == 1:
                continue
            known = dims[place]
            if known is None:
                dims[place] = node
            else:
                unify(known, node)
    return [node or Node(size) for node, size in zip(dims, shape, strict=True)]


@rule(
    "pointwise", "masked_fill", "where", "copy", "lerp", "addcmul", "addcdiv", "rsub", "polar", "dropout", "bernoulli"
)
def pointwise(recorder: Recorder, op, args, kwargs, output) -> None:
    operands = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    outputs = [x for x in tree_leaves(output) if isinstance(x, Tensor)]
    if not operands:
        for result in outputs:
            recorder.bind(result, [Node(n) for n in result.shape])
        return
    for result in outputs:
        recorder.bind(result, align(recorder, operands, tuple(result.shape)))


@rule(
    "clone", "_to_copy", "contiguous", "detach", "alias", "lift_fresh", "lift_fresh_copy", "view_as", "native_dropout"
)
def identity(recorder: Recorder, op, args, kwargs, output) -> None:
    source = args[0]
    for result in tree_leaves(output):
        if isinstance(result, Tensor) and result.shape == source.shape:
            recorder.bind(result, list(recorder.dims(source)))
            recorder.derive(result, source, range(source.dim()))
