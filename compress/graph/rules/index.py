"""Look-ups: a table's rows are addressed by number, the rest of it passes."""

from __future__ import annotations

from torch import Tensor
from torch.utils._pytree import tree_leaves

from compress.graph.axes import Node, unify
from compress.graph.record import Recorder, rule
from compress.graph.rules.pointwise import align


@rule("embedding")
def embedding(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    table, indices = args[0], args[1]
    rows, width = recorder.dims(table)
    if id(indices) in recorder.inputs:  # the numbers are the model's own inputs: tokens
        rows.mark("vocab")
    else:
        rows.pin("its rows are looked up by numbers that the model computes")
    recorder.bind(output, [*recorder.dims(indices), width])


def picked(
    recorder: Recorder, node: Node, numbers: object, reason: str = "its entries are picked by computed numbers"
) -> None:
    """Entries of an axis are addressed by a tensor of numbers. Positions of a ranking (a router's choice) name what was
    ranked, so that the two are one axis; what other numbers address must stay whole."""
    known = recorder.numbers.get(id(numbers))
    node.mark("routed")
    if known is None or known.size != node.size:
        node.pin(reason)
    else:
        unify(node, known)


@rule("index", "_unsafe_index")
def index(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    source, indices = args[0], list(args[1])
    used = [i for i, x in enumerate(indices) if x is not None]
    dims = recorder.dims(source)
    picks = [indices[i] for i in used]
    for place in used:
        picked(recorder, dims[place], indices[place])
    shape = _broadcast(picks)
    looked_up = align(recorder, picks, shape)
    rest = [(i, d) for i, d in enumerate(dims) if i not in used]
    adjacent = used == list(range(used[0], used[0] + len(used)))
    at = used[0] if adjacent else 0
    before = [(i, d) for i, d in rest if i < at]
    after = [(i, d) for i, d in rest if i >= at]
    recorder.bind(output, [d for _, d in before] + looked_up + [d for _, d in after])
    recorder.derive(output, source, [*[i for i, _ in before], *[None] * len(shape), *[i for i, _ in after]])


@rule("index_select")
def index_select(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    source, dim = args[0], args[1] % args[0].dim()
    dims = list(recorder.dims(source))
    picked(recorder, dims[dim], args[2])
    dims[dim] = recorder.dims(args[2])[0] if args[2].dim() else Node(1)
    recorder.bind(output, dims)
    recorder.derive(output, source, [None if i == dim else i for i in range(source.dim())])


@rule("gather")
def gather(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    source, dim, picks = args[0], args[1] % args[0].dim(), args[2]
    dims = recorder.dims(source)
    picked(recorder, dims[dim], picks)
    for place, (a, b) in enumerate(zip(dims, recorder.dims(picks), strict=True)):
        if place != dim and a.size == b.size:
            unify(a, b)
    recorder.bind(output, list(recorder.dims(picks)))


@rule(
    "scatter",
    "scatter_add",
    "scatter_reduce",
    "index_add",
    "index_put",
    "_index_put_impl",
    "index_fill",
    "index_copy",
    "slice_scatter",
    "select_scatter",
)
def scatter(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    dims = recorder.dims(args[0])
    name = op.overloadpacket.__name__
    places = range(len(dims)) if not isinstance(args[1], int) else [args[1]]
    if name.startswith(("index_put", "_index_put")):
        places = [i for i, x in enumerate(args[1]) if x is not None]
    for place in places:
        picks = args[1][place] if isinstance(args[1], list | tuple) else args[2] if len(args) > 2 else None
        picked(recorder, dims[place], picks, "entries of it are written by computed numbers")
    value = args[-1] if name in ("index_add",) else args[2] if name.startswith(("index_put", "_index_put")) else None
    if isinstance(value, Tensor):
        for back in range(1, min(value.dim(), len(dims)) + 1):
            node = recorder.dims(value)[-back]
            if len(dims) - back not in {p % len(dims) for p in places} and node.size == dims[-back].size:
                unify(node, dims[-back])
    recorder.bind(output, list(dims))


@rule("topk", "sort", "argsort", "kthvalue")
def order(recorder: Recorder, op, args, kwargs, output) -> None:
    source: Tensor = args[0]
    name = op.overloadpacket.__name__
    position = 1 if name in ("sort", "argsort") else 2
    dim = kwargs.get("dim", args[position] if len(args) > position and isinstance(args[position], int) else -1)
    dim %= source.dim()
    dims = recorder.dims(source)
    dims[dim].mark("ranked")
    results = [x for x in tree_leaves(output) if isinstance(x, Tensor)]
    chosen = Node(results[0].shape[dim])
    if name == "topk":
        recorder.ranked.append((dims[dim], chosen.size))
    for result in results:
        recorder.bind(result, [*dims[:dim], chosen, *dims[dim + 1 :]])
        if not result.is_floating_point():
            recorder.numbers[id(result)] = dims[dim]


@rule("one_hot", "bucketize", "searchsorted", "bincount", "histc")
def count(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    same = recorder.dims(args[0])
    dims = (
        list(same[: output.dim()])
        if output.dim() >= len(same) and list(output.shape[: len(same)]) == [d.size for d in same]
        else []
    )
    recorder.bind(output, dims + [Node(n) for n in output.shape[len(dims) :]])


def _broadcast(tensors: list[Tensor]) -> tuple[int, ...]:
    rank = max(t.dim() for t in tensors)
    padded = [[1] * (rank - t.dim()) + list(t.shape) for t in tensors]
    return tuple(max(sizes) for sizes in zip(*padded, strict=True))
