"""Short films out of pictures: the view moves over one of them."""

from __future__ import annotations

import torch
from torch import Tensor

from compress.data.images import Preparation, images_of, resized
from compress.errors import InputError
from compress.recipe.part import Part

VIEW = 0.6
"""Side of the view, as a share of what of the picture has its sides' ratio."""


def film_samples(data: Part | str, samples: int, frames: int, prepare: Preparation, seed: int) -> Tensor:
    """`samples` films `[samples, frames, channels, height, width]` from a source of images, a file or a folder.

    Every image is taken as often as another, each time along another way. Raises InputError for a source that gives no
    images.
    """
    images = list(images_of(data))
    if not images:
        raise InputError(f"calibrate.data: {data} gives no image")
    films = [_film(images[i % len(images)], frames, prepare, seed * 1_000_003 + i) for i in range(samples)]
    return torch.stack([prepare(film) for film in films])


def _film(image: Tensor, frames: int, prepare: Preparation, seed: int) -> Tensor:
    """From one place of an image `[height, width, 3]` of 0 to 255 in a straight line to another."""
    ends = torch.rand(2, 2, generator=torch.Generator().manual_seed(seed))
    height, width = image.shape[:2]
    scale = VIEW * min(height / prepare.size[0], width / prepare.size[1])
    rows, columns = max(1, int(prepare.size[0] * scale)), max(1, int(prepare.size[1] * scale))
    whole, shown = image.permute(2, 0, 1)[None].float() / 255, []
    for time in torch.linspace(0, 1, frames).tolist():
        down, across = ((1 - time) * ends[0] + time * ends[1]).tolist()
        top, left = int(down * (height - rows)), int(across * (width - columns))
        part = whole[..., top : top + rows, left : left + columns]
        shown.append(resized(part, prepare.size, len(prepare.mean)))
    return torch.stack(shown)
