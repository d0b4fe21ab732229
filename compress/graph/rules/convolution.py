"""Convolutions: matrix products at every position of an image or a signal, over groups of channels."""

from __future__ import annotations

from torch import Tensor

from compress.graph.axes import Node, product, split, unify
from compress.graph.record import Convolved, Recorder, pinned, rule

POSITIONS = "it counts the positions of an image or a signal"
KERNEL = "it counts the positions of a kernel"


@rule("convolution", "convolution_overrideable", "mkldnn_convolution")
def convolution(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    """Input `[samples, in, *positions]` by weight `[out, in / groups, *kernel]` → `[samples, out, *positions]`.

    A transposed one's weight is `[in, out / groups, *kernel]`. Both sides' channels are groups × channels of a group;
    a depth-wise one's groups are its channels, which pass.
    """
    source, kernel, bias, transposed, groups = args[0], args[1], args[2], args[6], args[8]
    given, weight = recorder.dims(source), recorder.dims(kernel)
    group, own = split(weight[0], weight[0].size // groups)
    if transposed:
        unify(given[1], weight[0])
        inner, outer, made = own, weight[1], product([group, weight[1]])
    else:
        major, inner = split(given[1], weight[1].size)
        unify(major, group)
        unify(inner, weight[1])
        outer, made = own, weight[0]
    made.mark("convolved")
    if bias is not None:
        unify(recorder.dims(bias)[0], made)
    _play(recorder, kernel, transposed=transposed, contracts=inner.size > 1, widens=outer.size > 1)
    for node in given[2:]:
        node.pin(POSITIONS)
    for node in weight[2:]:
        node.pin(KERNEL)
    positions = pinned(output.shape[2:], POSITIONS)
    # Each position of the result, of a transposed one each of what is given, is multiplied by the whole kernel.
    recorder.products.append(((given[0], *(given[2:] if transposed else positions), *weight), recorder.active))
    recorder.bind(output, [given[0], made, *positions])
    if (origin := recorder.origins.get(id(kernel))) is not None:
        recorder.convolved(output, Convolved(origin[0], groups, transposed, len(positions)))


def _play(recorder: Recorder, kernel: Tensor, *, transposed: bool, contracts: bool, widens: bool) -> None:
    """Roles of a kernel's first two dimensions. Channels of a depth-wise convolution pass: none is contracted."""
    if transposed:
        recorder.play(kernel, 0, "in" if contracts else "out")
        if widens:
            recorder.play(kernel, 1, "out")
        return
    recorder.play(kernel, 0, "out")
    if contracts:
        recorder.play(kernel, 1, "in")


@rule("im2col")
def unfolded(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    """`[samples, channels, height, width]` → `[samples, channels × kernel, patches]`."""
    *lead, channels, down, across = recorder.dims(args[0])
    for node in (down, across):
        node.pin(POSITIONS)
    (kernel,) = pinned([output.shape[-2] // channels.size], KERNEL)
    recorder.bind(output, [*lead, product([channels, kernel]), *pinned(output.shape[-1:], POSITIONS)])


@rule("col2im")
def folded(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    """`[samples, channels × kernel, patches]` → `[samples, channels, height, width]`."""
    *lead, columns, patches = recorder.dims(args[0])
    channels, kernel = split(columns, columns.size // output.shape[-3])
    kernel.pin(KERNEL)
    patches.pin(POSITIONS)
    recorder.bind(output, [*lead, channels, *pinned(output.shape[-2:], POSITIONS)])


@rule("unfold")
def windows(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    """Windows along one dimension, which become a last dimension more."""
    dims: list[Node] = list(recorder.dims(args[0]))
    place = args[1] % len(dims)
    dims[place].pin("windows are cut from it")
    count, size = pinned([output.shape[place], output.shape[-1]], POSITIONS)
    recorder.bind(output, [*dims[:place], count, *dims[place + 1 :], size])


@rule("_weight_norm_interface")
def weight_norm(recorder: Recorder, op, args, kwargs, output) -> None:
    """A weight as direction and length: v · g / ‖v‖, norms over all dimensions but one."""
    direction, length = args[0], args[1]
    place = args[2] if len(args) > 2 else kwargs.get("dim", 0)
    dims = recorder.dims(direction)
    for node, own in zip(dims, recorder.dims(length), strict=True):
        if own.size != 1:
            unify(node, own)
    weight, norm = output
    recorder.bind(weight, list(dims))
    recorder.derive(weight, direction, range(direction.dim()))
    recorder.bind(norm, [node if i == place % len(dims) else Node(1) for i, node in enumerate(dims)])
