"""What a projection multiplies of what it is given: the rows of a linear layer, the windows of a convolution."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from torch import Tensor, nn
from torch.nn import functional

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

PIECE = 1 << 24
"""Numbers of unfolded windows in memory at a time."""


def rows_of(module: nn.Module, given: Tensor) -> Iterator[Tensor]:
    """What a convolution `module` multiplies, in pieces `[windows, channels × kernel]`.

    Of a grouped one `[groups, windows, channels of a group × kernel]`, of a transposed one, which multiplies single
    positions, `[positions, channels]`. Channels are the slower index, as in its weight.
    """
    if isinstance(module, TRANSPOSED):
        yield given.movedim(1, -1).reshape(-1, given.shape[1])
        return
    assert isinstance(module, CONVOLUTIONS)
    windows = _windows(module, given)
    half = windows.dim() // 2
    columns = prod(windows.shape[half:])
    sample = prod(windows.shape[1:half]) * columns
    if sample <= PIECE:
        pieces: Iterator[Tensor] = iter(windows.split(max(1, PIECE // max(sample, 1))))
    else:
        each = max(1, PIECE * windows.shape[1] // sample)
        pieces = (piece for one in windows.split(1) for piece in one.split(each, 1))
    for piece in pieces:
        rows = piece.reshape(-1, columns)
        groups = module.groups
        yield rows if groups == 1 else rows.view(len(rows), groups, -1).movedim(1, 0)


def _windows(module: nn.Conv1d | nn.Conv2d | nn.Conv3d, given: Tensor) -> Tensor:
    """A view `[samples, *positions, channels, *kernel]` of the padded input."""
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = functional.pad(given, module._reversed_padding_repeated_twice, mode=mode)
    sizes = zip(module.weight.shape[2:], module.stride, module.dilation, strict=True)
    for place, (size, stride, apart) in enumerate(sizes, 2):
        x = x.unfold(place, apart * (size - 1) + 1, stride)[..., ::apart]
    count = module.weight.dim() - 2
    return x.permute(0, *range(2, 2 + count), 1, *range(2 + count, 2 + 2 * count))


def flat_matrix(module: nn.Module) -> Tensor:
    """The weight of a linear layer or a convolution as `[out, in]` or `[out, in × kernel]`."""
    weight: Tensor = module.weight  # pyright: ignore[reportAssignmentType]
    if isinstance(module, nn.Linear):
        return weight
    if isinstance(module, CONVOLUTIONS):
        return weight.flatten(1)
    return weight.movedim(0, -1).flatten(0, -2)


def outputs_of(module: nn.Module, output: Tensor) -> Tensor:
    """What a projection put out, or the gradient by it, `[rows, out]`; of a convolution a row for each position."""
    wide = output.movedim(1, -1) if isinstance(module, CONVOLUTIONS + TRANSPOSED) else output
    return wide.reshape(-1, wide.shape[-1])


def by_group(module: nn.Module, rows: Tensor) -> Tensor:
    """Outputs `[rows, out]`, of a grouped convolution laid out as `rows_of` lays out what it is given,
    `[groups, rows, out / groups]`."""
    if not isinstance(module, CONVOLUTIONS) or module.groups == 1:
        return rows
    return rows.view(len(rows), module.groups, -1).movedim(1, 0)


def is_convolution(module: nn.Module) -> bool:
    """Whether it is a convolution, transposed or not."""
    return isinstance(module, CONVOLUTIONS + TRANSPOSED)


def widths(module: nn.Module) -> int:
    """How many outputs a projection has."""
    if isinstance(module, TRANSPOSED):
        return module.weight.shape[1] * module.groups
    shape: tuple[int, ...] = module.weight.shape  # pyright: ignore[reportAttributeAccessIssue, reportAssignmentType]
    return shape[0] if isinstance(module, (nn.Linear, *CONVOLUTIONS)) else shape[-1]


def inputs(module: nn.Module) -> int:
    """How many channels a projection is given."""
    if isinstance(module, CONVOLUTIONS + TRANSPOSED):
        return module.in_channels
    shape: tuple[int, ...] = module.weight.shape  # pyright: ignore[reportAttributeAccessIssue, reportAssignmentType]
    return shape[-1] if isinstance(module, nn.Linear) else shape[0]


def per_column(module: nn.Module, channels: Tensor) -> Tensor:
    """Values of input channels `[in]`, shared out evenly to what a projection multiplies, laid out as `rows_of` is."""
    if not isinstance(module, CONVOLUTIONS):
        return channels
    kernel = prod(module.kernel_size)
    columns = channels.repeat_interleave(kernel) / kernel
    return columns if module.groups == 1 else columns.view(module.groups, -1)
