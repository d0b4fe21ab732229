"""Pooling and resampling: samples and channels pass, positions are others afterwards."""

from __future__ import annotations

from torch import Tensor
from torch.utils._pytree import tree_leaves

from compress.graph.axes import product, split, unify
from compress.graph.record import Recorder, pinned, rule
from compress.graph.rules.convolution import POSITIONS


def resampled(recorder: Recorder, source: Tensor, results: list[Tensor], positions: int) -> None:
    """The last dimensions, so many, are other positions in the results; what comes before passes."""
    dims = recorder.dims(source)
    lead = len(dims) - positions
    for node in dims[lead:]:
        node.pin(POSITIONS)
    for result in results:
        recorder.bind(result, [*dims[:lead], *pinned(result.shape[lead:], POSITIONS)])


@rule(
    "max_pool2d_with_indices",
    "max_pool3d_with_indices",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d",
    "adaptive_avg_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "fractional_max_pool2d",
    "fractional_max_pool3d",
    "max_unpool2d",
    "max_unpool3d",
    "upsample_nearest1d",
    "upsample_nearest2d",
    "upsample_nearest3d",
    "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d",
    "_upsample_nearest_exact3d",
    "upsample_linear1d",
    "upsample_bilinear2d",
    "upsample_trilinear3d",
    "upsample_bicubic2d",
    "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa",
    "_upsample_lanczos2d_aa",
    "reflection_pad1d",
    "reflection_pad2d",
    "reflection_pad3d",
    "replication_pad1d",
    "replication_pad2d",
    "replication_pad3d",
)
def pool(recorder: Recorder, op, args, kwargs, output) -> None:
    """One to three dimensions of positions, as the name says."""
    name = op.overloadpacket.__name__
    positions = next(n for n in (1, 2, 3) if f"{n}d" in name)
    resampled(recorder, args[0], [x for x in tree_leaves(output) if isinstance(x, Tensor)], positions)


@rule("grid_sampler_2d", "grid_sampler_3d")
def sampled_at(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    """Images `[samples, channels, *positions]` read at places `[samples, *positions, coordinates]`."""
    places = recorder.dims(args[1])
    unify(recorder.dims(args[0])[0], places[0])
    for node in places[1:]:
        node.pin(POSITIONS)
    resampled(recorder, args[0], [output], args[0].dim() - 2)


@rule("pixel_shuffle")
def channels_to_pixels(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    """`[…, channels × f × f, height, width]` → `[…, channels, height × f, width × f]`."""
    *lead, deep, down, across = recorder.dims(args[0])
    channels, pixels = split(deep, deep.size // output.shape[-3])
    for node in (pixels, down, across):
        node.pin(POSITIONS)
    recorder.bind(output, [*lead, channels, *pinned(output.shape[-2:], POSITIONS)])


@rule("pixel_unshuffle")
def pixels_to_channels(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    """`[…, channels, height × f, width × f]` → `[…, channels × f × f, height, width]`."""
    *lead, channels, down, across = recorder.dims(args[0])
    for node in (down, across):
        node.pin(POSITIONS)
    (pixels,) = pinned([output.shape[-3] // channels.size], POSITIONS)
    recorder.bind(output, [*lead, product([channels, pixels]), *pinned(output.shape[-2:], POSITIONS)])


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(recorder: Recorder, op, args, kwargs, output: Tensor) -> None:
    """Channels as groups × channels become channels × groups; the number of groups is the operator's own."""
    dims = list(recorder.dims(args[0]))
    groups, own = split(dims[1], dims[1].size // args[1])
    groups.pin("channels are shuffled in so many groups")
    dims[1] = product([own, groups])
    recorder.bind(output, dims)
