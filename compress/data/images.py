"""Images from a source as a model of vision takes them: crops of one size, scaled and normalised."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from compress.errors import InputError
from compress.recipe.part import Part
from compress.registry import sources

PREPROCESSOR = "preprocessor_config.json"

MAX_IMAGES = 10_000
"""Images of a source that are read at most."""

SMALLEST = 0.5
"""Smallest side of a crop, as a share of the image's smaller side: crops still show what the image is of."""


@dataclass(frozen=True)
class Preparation:
    """The `size` (height, width) that images get, and what is subtracted from their channels, of 0 to 1, and divides
    them."""

    size: tuple[int, int]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __call__(self, crops: Tensor) -> Tensor:
        """`[n, channels, height, width]` of 0 to 1, as the model takes them."""
        mean, deviation = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.deviation))
        return (crops - mean) / deviation


def preparation(folder: Path, size: tuple[int, int], channels: int, *, fixed: bool = False) -> Preparation:
    """What `preprocessor_config.json` in the model's folder says, and `size` and −1 to 1 where it says nothing.

    With `fixed` the size is `size` whatever the file says.

    Raises InputError when the file is no such thing.
    """
    file = folder / PREPROCESSOR
    said: Any = {}
    if file.exists():
        try:
            said = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{file}: cannot be read ({error}); fetch it again") from None
    if not isinstance(said, dict):
        raise InputError(f"{file}: holds no settings by name; fetch it again")
    statistics = []
    for field in ("image_mean", "image_std"):
        values = said.get(field) if said.get("do_normalize", True) else [float(field == "image_std")] * channels
        values = [0.5] * channels if values is None else values
        numbers = isinstance(values, list) and all(isinstance(value, int | float) for value in values)
        if not numbers or len(values) != channels:
            raise InputError(f"{file}: {field} is {values!r}, but the model takes {channels} channels; mend it")
        statistics.append(tuple(float(value) for value in values))
    if 0 in statistics[1]:
        raise InputError(f"{file}: image_std holds a zero, by which nothing can be divided; mend it")
    return Preparation(size if fixed else _size(file, said) or size, *statistics)


def _size(file: Path, said: Mapping[str, Any]) -> tuple[int, int] | None:
    """What is left of an image in the end: the crop where there is one, else what it is resized to."""
    cropped = said.get("crop_size") if said.get("do_center_crop", "crop_size" in said) else None
    found = cropped or said.get("size")
    if isinstance(found, int):
        found = {"shortest_edge": found}
    if found is None:
        return None
    height, width = (found.get(side, found.get("shortest_edge")) for side in ("height", "width"))
    if not (isinstance(height, int) and isinstance(width, int) and min(height, width) > 0):
        raise InputError(f"{file}: {found!r} is no size of an image; it has a height and a width, or a shortest_edge")
    return height, width


def image_samples(data: Part | str, samples: int, prepare: Preparation, seed: int) -> Tensor:
    """`samples` images `[samples, channels, height, width]` from a source of images, a file or a folder.

    Every image is taken as often as another, each time another part of it: a crop of a random size and place, mirrored
    half of the time. `random` is noise. Raises InputError for a source that gives no images.
    """
    channels = len(prepare.mean)
    if getattr(data, "name", data) == "random":
        return torch.randn(samples, channels, *prepare.size, generator=torch.Generator().manual_seed(seed))
    images = list(images_of(data))
    if not images:
        raise InputError(f"calibrate.data: {data} gives no image")
    drawn = (images[i % len(images)] for i in range(samples))
    crops = [crop(image, prepare.size, channels, seed * 1_000_003 + i) for i, image in enumerate(drawn)]
    return prepare(torch.stack(crops))


def crop(image: Tensor, size: tuple[int, int], channels: int, seed: int) -> Tensor:
    """A part of an image `[height, width, 3]` of 0 to 255 with the sides' ratio of `size`, as `[channels, *size]`."""
    generator = torch.Generator().manual_seed(seed)
    share, across, down, mirrored = torch.rand(4, generator=generator).tolist()
    height, width = image.shape[:2]
    scale = min(height / size[0], width / size[1]) * (SMALLEST + (1 - SMALLEST) * share)
    rows, columns = max(1, int(size[0] * scale)), max(1, int(size[1] * scale))
    top, left = int(down * (height - rows)), int(across * (width - columns))
    part = image[top : top + rows, left : left + columns].permute(2, 0, 1)[None].float() / 255
    part = part.flip(-1) if mirrored < 0.5 else part
    return resized(part, size, channels)


def resized(part: Tensor, size: tuple[int, int], channels: int) -> Tensor:
    """A part of an image `[1, 3, height, width]` as `[channels, *size]`, all of them its brightness unless there are
    three."""
    part = interpolate(part, size, mode="bilinear", antialias=True, align_corners=False)[0]
    return part if channels == 3 else part.mean(0, keepdim=True).expand(channels, -1, -1)


def images_of(data: Part | str) -> Iterator[Tensor]:
    """The images, each `[height, width, 3]` uint8; at most MAX_IMAGES of them."""
    part = data if isinstance(data, Part) else Part("pictures", {"path": str(data)})
    entry = sources.get(part.name)
    if entry.meta.gives != "images":
        known = ", ".join(name for name in sources.names() if sources.get(name).meta.gives == "images")
        given = entry.meta.gives
        raise InputError(
            f"calibrate.data: {part.name} gives {given}, and the model reads images; take {known} or random"
        )
    yield from islice(part.bind(sources)(), MAX_IMAGES)
