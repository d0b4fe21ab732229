"""Views: factor, merge, reorder, cut, join and repeat dimensions."""

from __future__ import annotations

from torch import Tensor

from compress.graph.axes import Mismatch, Node, cut, product, reshape, split, total, unify
from compress.graph.record import Recorder, pinned, rule


@rule("view", "_unsafe_view", "reshape", "_reshape_alias")
def view(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    source: Tensor = args[0]
    dims = _reshaped(recorder, list(recorder.dims(source)), list(output.shape))
    recorder.bind(output, dims)
    # A stored dimension is still itself where the view left it alone.
    old = recorder.dims(source)
    recorder.derive(output, source, [next((i for i, o in enumerate(old) if o is d), None) for d in dims])


def _reshaped(recorder: Recorder, dims: list[Node], sizes: list[int]) -> list[Node]:
    """The dims of a view as `sizes`. Where they cannot be told, those at both ends that stay as they are pass."""
    try:
        return reshape(dims, sizes)
    except Mismatch as why:
        front = _alike([node.size for node in dims], sizes)
        back = min(_alike([node.size for node in dims[::-1]], sizes[::-1]), len(dims) - front, len(sizes) - front)
        if not front and not back:
            raise
        inner = recorder.part(f"view: {why}", dims[front : len(dims) - back], sizes[front : len(sizes) - back])
        return [*dims[:front], *inner, *dims[len(dims) - back :]]


def _alike(one: list[int], other: list[int]) -> int:
    """How many of the first sizes are the same."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@rule("t", "transpose", "permute")
def permute(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    source: Tensor = args[0]
    n = source.dim()
    name = op.overloadpacket.__name__
    order = list(range(n))
    if name == "permute":
        order = [d % n for d in args[1]]
    elif name == "transpose":
        a, b = args[1] % n, args[2] % n
        order[a], order[b] = order[b], order[a]
    else:
        order.reverse()
    dims = recorder.dims(source)
    recorder.bind(output, [dims[d] for d in order])
    recorder.derive(output, source, order)


@rule("unsqueeze")
def unsqueeze(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    place = args[1] % output.dim()
    dims: list[Node] = list(recorder.dims(args[0]))
    recorder.bind(output, [*dims[:place], Node(1), *dims[place:]])
    recorder.derive(output, args[0], [*range(place), None, *range(place, len(dims))])


@rule("squeeze")
def squeeze(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    source: Tensor = args[0]
    chosen = range(source.dim()) if len(args) < 2 else [args[1]] if isinstance(args[1], int) else args[1]
    gone = {d % source.dim() for d in chosen if source.shape[d] == 1}
    places = [i for i in range(source.dim()) if i not in gone]
    recorder.bind(output, [recorder.dims(source)[i] for i in places])
    recorder.derive(output, source, places)


@rule("squeeze_", "unsqueeze_", "t_", "transpose_", "swapdims_", "swapaxes_")
def in_place(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    """The operand has its new shape already: its dimensions before tell which are meant."""
    sizes, name = [node.size for node in recorder.dims(output)], op.overloadpacket.__name__
    places: list[int | None] = list(range(len(sizes)))
    if name == "squeeze_":
        chosen = places if len(args) < 2 else [args[1]] if isinstance(args[1], int) else args[1]
        gone = {d % len(sizes) for d in chosen if d is not None and sizes[d] == 1}
        places = [place for place in places if place not in gone]
    elif name == "unsqueeze_":
        places.insert(args[1] % (len(sizes) + 1), None)
    elif len(sizes) > 1:
        one, other = (d % len(sizes) for d in args[1:3]) if len(args) > 1 else (0, 1)
        places[one], places[other] = places[other], places[one]
    recorder.reform(output, places)


@rule("expand")
def expand(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    source: Tensor = args[0]
    lead = output.dim() - source.dim()
    dims: list[Node] = []
    for place, size in enumerate(output.shape):
        node = recorder.dims(source)[place - lead] if place >= lead else None
        if node is None or node.size != size:
            node = Node(size)
            node.mark("broadcast")
        dims.append(node)
    recorder.bind(output, dims)
    recorder.derive(
        output,
        source,
        [None] * lead + [i if dims[i + lead] is n else None for i, n in enumerate(recorder.dims(source))],
    )


@rule("repeat")
def repeat(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    source: Tensor = args[0]
    lead = output.dim() - source.dim()
    dims = []
    for place, times in enumerate(args[1]):
        outer = Node(times)
        outer.mark("broadcast")
        dims.append(product([outer, recorder.dims(source)[place - lead]]) if place >= lead else outer)
    recorder.bind(output, dims)


@rule("slice")
def slice_(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    source, dim, start, end, step = [*args, *[0, None, None, 1][len(args) - 1 :]]
    dim %= source.dim()
    dims = list(recorder.dims(source))
    size = source.shape[dim]
    start, end, _ = slice(start, end).indices(size)
    if step != 1:
        dims[dim] = _strided(dims[dim], start, end, step, output.shape[dim])
    elif end - start != size:
        try:
            _, tail = cut(dims[dim], start)
            dims[dim], _ = cut(tail, max(end - start, 0))
        except Mismatch as why:  # the other dimensions pass
            dims[dim : dim + 1] = recorder.part(f"slice: {why}", dims[dim : dim + 1], [output.shape[dim]])
    recorder.bind(output, dims)
    recorder.derive(output, source, [i if i != dim or output.shape[i] == size else None for i in range(source.dim())])


def _strided(node: Node, start: int, end: int, step: int, size: int) -> Node:
    """Every `step`-th position: the axis is (size / step) × step, one index of the minor part chosen.

    Where it does not divide so, this axis stays whole, and the others of the tensor are none the worse for it.
    """
    if node.size % step == 0 and end - start > node.size - step and start < step:
        try:
            major, minor = split(node, step)
            minor.pin("a strided slice picks one index of it")
            return major
        except Mismatch:
            pass
    node.pin("a strided slice picks some of it")
    return pinned([size], "a strided slice picked it")[0]


@rule("select")
def select(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    source, dim = args[0], args[1] % args[0].dim()
    dims = list(recorder.dims(source))
    dims.pop(dim).pin("one index of it is picked by number")
    recorder.bind(output, dims)
    recorder.derive(output, source, [i for i in range(source.dim()) if i != dim])


@rule("unbind")
def unbind(recorder: Recorder, op, args, kwargs, output) -> None:
    source = args[0]
    dim = (args[1] if len(args) > 1 else 0) % source.dim()
    dims = list(recorder.dims(source))
    dims.pop(dim).pin("each index of it is used apart")
    for result in output:
        recorder.bind(result, list(dims))


@rule("split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk")
def split_(recorder: Recorder, op, args, kwargs, output) -> None:
    source = args[0]
    dim = (args[2] if len(args) > 2 else kwargs.get("dim", 0)) % source.dim()
    dims = list(recorder.dims(source))
    rest = dims[dim]
    for result in output:
        piece, rest = cut(rest, result.shape[dim])
        recorder.bind(result, [*dims[:dim], piece, *dims[dim + 1 :]])


@rule("cat", "concatenate")
def cat(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    # The key/value cache starts as an empty one-dimensional tensor, which torch lets `cat` ignore.
    parts = [p for p in args[0] if p.numel() or p.dim() == output.dim()]
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % output.dim()
    lists = [recorder.dims(p) for p in parts]
    dims = list(lists[0])
    for other in lists[1:]:
        for place in range(len(dims)):
            if place != dim:
                unify(dims[place], other[place])
    dims[dim] = total([part[dim] for part in lists])
    recorder.bind(output, dims)


@rule("stack")
def stack(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    dim = (args[1] if len(args) > 1 else 0) % output.dim()
    dims = list(recorder.dims(args[0][0]))
    for other in args[0][1:]:
        for a, b in zip(dims, recorder.dims(other), strict=True):
            unify(a, b)
    outer = Node(len(args[0]))
    outer.pin("tensors are stacked along it")
    recorder.bind(output, [*dims[:dim], outer, *dims[dim:]])


@rule("constant_pad_nd")
def pad(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    dims = list(recorder.dims(args[0]))
    for back, (before, after) in enumerate(zip(args[1][::2], args[1][1::2], strict=True), 1):
        if before or after:
            if before < 0 or after < 0:
                raise Mismatch("negative padding")
            edge = [Node(before), dims[-back], Node(after)]
            for node in (edge[0], edge[2]):
                node.pin("padding")
            dims[-back] = total(edge)
    recorder.bind(output, dims)


@rule("flip", "roll")
def shuffle(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    dims = list(recorder.dims(args[0]))
    moved = args[1] if op.overloadpacket.__name__ == "flip" else (args[2] if len(args) > 2 else range(len(dims)))
    for d in moved:
        dims[d].pin("its order is changed")
    recorder.bind(output, dims)


@rule("as_strided")
def strided(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    """The same tensor in another order in memory."""
    if output.shape != args[0].shape:
        raise Mismatch("other sizes over the same memory")
    recorder.bind(output, list(recorder.dims(args[0])))
    recorder.derive(output, args[0], range(output.dim()))


@rule("view_as_complex")
def as_complex(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    *dims, pair = recorder.dims(args[0])
    pair.pin("it holds real and imaginary parts")
    recorder.bind(output, dims)


@rule("view_as_real")
def as_real(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    pair = Node(2)
    pair.pin("it holds real and imaginary parts")
    recorder.bind(output, [*recorder.dims(args[0]), pair])
