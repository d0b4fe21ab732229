"""Matrix products: the contracted dimensions are tied, the outer ones pass through."""

from __future__ import annotations

from torch import Tensor

from compress.graph.axes import Node, unify
from compress.graph.record import Recorder, rule
from compress.graph.rules.pointwise import align


def _multiply(recorder: Recorder, left: Tensor, right: Tensor) -> list[Node]:
    """Dims of `left @ right` for operands of equal rank 2 or 3; notes work, roles and marks."""
    a, b = recorder.dims(left), recorder.dims(right)
    unify(a[-1], b[-2])
    batch = a[:-2]
    for x, y in zip(batch, b[:-2], strict=True):
        unify(x, y)
    recorder.play(left, left.dim() - 1, "in")
    recorder.play(left, left.dim() - 2, "out")
    recorder.play(right, right.dim() - 2, "in")
    recorder.play(right, right.dim() - 1, "out")
    if not (recorder.is_stored(left) or recorder.is_stored(right)):
        # Two activations meet: attention. Its batch is heads; q and k contract head_dim; v carries it.
        for node in batch:
            node.mark("batched")
        a[-1].mark("contracted")
        b[-1].mark("carried")
    recorder.products.append(((*batch, a[-2], a[-1], b[-1]), recorder.active))
    return [*batch, a[-2], b[-1]]


@rule("mm", "bmm", "matmul")
def mm(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    recorder.bind(output, _multiply(recorder, args[0], args[1]))


@rule("mv", "dot")
def mv(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    a, b = recorder.dims(args[0]), recorder.dims(args[1])
    unify(a[-1], b[0])
    recorder.play(args[0], args[0].dim() - 1, "in")
    recorder.bind(output, a[:-1])


@rule("addmm", "baddbmm")
def addmm(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    dims = _multiply(recorder, args[1], args[2])
    bias: Tensor = args[0]
    for place, node in enumerate(recorder.dims(bias), len(dims) - bias.dim()):
        if node.size != 1:
            unify(node, dims[place])
    recorder.bind(output, dims)


@rule(
    "_scaled_dot_product_attention_math",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_fused_attention_overrideable",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_flash_attention",
)
def attention(recorder: Recorder, op, args, kwargs, output) -> None:
    q, k, v = (recorder.dims(x) for x in args[:3])
    for place in (0, 1):
        unify(q[place], k[place])
        unify(q[place], v[place])
        q[place].mark("batched")
    unify(q[3], k[3])
    unify(k[2], v[2])
    q[3].mark("contracted")
    v[3].mark("carried")
    recorder.products += [
        ((q[0], q[1], q[2], q[3], k[2]), recorder.active),
        ((q[0], q[1], q[2], k[2], v[3]), recorder.active),
    ]
    dims = [q[0], q[1], q[2], v[3]]
    outputs = list(output) if isinstance(output, tuple | list) else [output]
    recorder.bind(outputs[0], dims)
    for other in outputs[1:]:
        if isinstance(other, Tensor):
            recorder.bind(other, align(recorder, [], tuple(other.shape)))
