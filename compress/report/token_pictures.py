"""Pictures with the visual tokens that are left: one row for each picture, one column for each stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import Tensor

from compress.report.plots import INK, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from compress.runtime.tokens.trace import After, Trace
    from compress.runtime.tokens.turn import Group

MOST, STAGES = 4, 5
"""Pictures that are drawn, and stages of each."""

SIDE = 1.9
"""Of a picture, in inches."""

VEIL, FADED = np.array([0.82, 0.83, 0.85]), 0.8
"""What tokens that went fade to, and how far."""

TINT = 0.45
"""How much of its colour a group of merged tokens takes on."""


def pictures(traces: Sequence[Trace], most: int = MOST, side: float = SIDE) -> Figure | None:
    """The first pictures as the tower saw them, and after each stage; None where there is none with rows and columns.

    `side` of a picture in inches. What was merged into one token has one colour and a frame around the token that
    holds it; what went altogether is greyed out. A picture that was cut into tiles has a row for each of its grids. Of
    more than five stages the last one at each place of the model is drawn, and of these every n-th.
    """
    found = [(trace, group) for trace in traces for group in trace.groups if group.shape is not None][:most]
    if not found:
        return None
    columns = 1 + max(len(_drawn(trace.stages)) for trace, _ in found)
    with rc_context(STYLE):
        figure = Figure(figsize=(side * columns + 0.1, side * len(found) + 0.3), layout="constrained")
        places = figure.subplots(len(found), columns, squeeze=False)
        for number, (trace, group) in enumerate(found):
            _row(places[number], trace, group, titled=number == 0)
    return figure


def shown(trace: Trace, group: Group, after: After | None) -> np.ndarray:
    """A picture's grid after a stage (None: before the first), `[height, width, 3]` of 0 to 1."""
    assert group.shape is not None
    picture = trace.picture(group)
    if picture is None:  # of unknown patches the grid alone
        picture = torch.full((*group.shape, 3), 0.55).repeat_interleave(8, 0).repeat_interleave(8, 1)
    pixels = picture.cpu().numpy()
    pixels = np.repeat(pixels, 3, 2) if pixels.shape[2] == 1 else pixels[..., :3]
    if after is None:
        return pixels
    into = after.of(group).cpu()
    colours, weight = _colours(into)
    return pixels * (1 - _large(weight, group, pixels)) + _large(colours * weight, group, pixels)


def _colours(into: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Of each token the colour that is laid over it, `[n, 3]`, and how much of it, `[n, 1]`."""
    colours, weight = np.tile(VEIL, (len(into), 1)), np.zeros((len(into), 1))
    weight[(into < 0).numpy()] = FADED
    holders, members = into[into >= 0].unique(return_counts=True)
    for number, holder in enumerate(holders[members > 1].tolist()):
        own = (into == holder).numpy()
        colours[own], weight[own] = _hue(number), TINT
    return colours, weight


def _hue(number: int) -> np.ndarray:
    """The colour of a group: hues a golden angle apart, so that those of neighbours differ."""
    angle = 2 * np.pi * ((0.618034 * number) % 1 + np.array([0, 1 / 3, 2 / 3]))
    return 0.5 + 0.5 * np.cos(angle)


def _large(values: np.ndarray, group: Group, pixels: np.ndarray) -> np.ndarray:
    """A value `[n, c]` for each token as one for each pixel, `[height, width, c]`."""
    assert group.shape is not None
    rows, columns = group.shape
    grid = values.reshape(rows, columns, -1)
    return grid.repeat(pixels.shape[0] // rows, 0).repeat(pixels.shape[1] // columns, 1)


def _row(line: Sequence[Axes], trace: Trace, group: Group, *, titled: bool) -> None:
    stages = _drawn(trace.stages)
    for axes, after in zip(line, [None, *stages], strict=False):
        pixels = shown(trace, group, after)
        axes.imshow(pixels, interpolation="nearest" if max(pixels.shape) < 200 else None)
        if after is not None:
            _frames(axes, after, group, pixels)
        if titled:
            axes.set_title("the picture" if after is None else _title(after), size=9, color=INK)
    for axes in line:
        axes.set_xticks([])
        axes.set_yticks([])
    for axes in line[1 + len(stages) :]:
        axes.set_visible(False)


def _drawn(stages: Sequence[After]) -> list[After]:
    """The stages that have a column; the last one always."""
    if len(stages) > STAGES:
        stages = list({after.layer: after for after in stages}.values())
    step = -(-len(stages) // STAGES)
    return list(stages[::-1][::step][::-1])


def _frames(axes: Axes, after: After, group: Group, pixels: Any) -> None:
    """A frame around each token that holds others, and how many tokens are left."""
    assert group.shape is not None
    into, own = after.of(group).cpu(), group.columns.cpu()
    holders, members = into[into >= 0].unique(return_counts=True)
    held = torch.isin(own, holders[members > 1]) & (into == own)
    high, wide = pixels.shape[0] / group.shape[0], pixels.shape[1] / group.shape[1]
    for token in held.nonzero()[:, 0].tolist():
        row, column = divmod(token, group.shape[1])
        left, top = column * wide - 0.5, row * high - 0.5
        across, down = [left, left + wide, left + wide, left, left], [top, top, top + high, top + high, top]
        axes.plot(across, down, color="white", linewidth=0.7)
    left = int((into == own).sum())
    axes.set_xlabel(f"{left} of {len(own)}", size=8, color=INK, labelpad=2)


def _title(after: After) -> str:
    return "before the decoder" if after.layer == 0 else f"from layer {after.layer} on"
