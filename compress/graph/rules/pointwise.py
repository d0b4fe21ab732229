"""Element-wise operators tie the dimensions that they line up."""

from __future__ import annotations

from torch import Tensor
from torch.utils._pytree import tree_leaves

from compress.graph.axes import Node, cut, find, unify
from compress.graph.record import Recorder, rule

# fmt: off
POINTWISE = (
    "pointwise", "masked_fill", "where", "copy", "lerp", "addcmul", "addcdiv", "rsub", "polar", "dropout", "bernoulli",
    "hardswish", "hardsigmoid", "hardtanh", "leaky_relu", "elu", "celu", "selu", "mish", "softplus", "threshold",
    "rrelu_with_noise", "prelu", "_prelu_kernel", "floor_divide",
)
UNCHANGED = (
    "clone", "_to_copy", "contiguous", "detach", "alias", "lift_fresh", "lift_fresh_copy", "view_as", "native_dropout",
    "log_sigmoid_forward",
)
# fmt: on
"""Operators that torch does not tag as pointwise, and those whose result is their first operand's in all dimensions."""


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


@rule(*POINTWISE)
def pointwise(recorder: Recorder, op, args, kwargs, output) -> None:
    operands = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    outputs = [x for x in tree_leaves(output) if isinstance(x, Tensor)]
    if op.overloadpacket.__name__ in ("add", "add_") and len(operands) == 2:
        _meet(recorder, *operands)
    if not operands:
        for result in outputs:
            recorder.bind(result, [Node(n) for n in result.shape])
        return
    for result in outputs:
        recorder.bind(result, align(recorder, operands, tuple(result.shape)))


def _meet(recorder: Recorder, one: Tensor, other: Tensor) -> None:
    """Two streams of channels are added: what a stage's shortcut and its branches have in common.

    Of one stream and what became of it channel by channel (Snake's x + sin² x) no more is known than before.
    """
    if one.dim() > 2 and one.shape == other.shape and not (recorder.is_stored(one) or recorder.is_stored(other)):
        nodes = [find(recorder.dims(tensor)[1]) for tensor in (one, other)]
        if nodes[0] is not nodes[1]:
            for node in nodes:
                node.mark("added")


@rule("glu")
def glu(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    """The first half of a dimension times a gate of the second."""
    place = (args[1] if len(args) > 1 else -1) % args[0].dim()
    dims = list(recorder.dims(args[0]))
    dims[place], gate = cut(dims[place], output.shape[place])
    unify(dims[place], gate)
    recorder.bind(output, dims)


@rule(*UNCHANGED)
def identity(recorder: Recorder, op, args, kwargs, output) -> None:
    source = args[0]
    for result in tree_leaves(output):
        if isinstance(result, Tensor) and result.shape == source.shape:
            recorder.bind(result, list(recorder.dims(source)))
            recorder.derive(result, source, range(source.dim()))
