"""Images with what is written about them."""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch
from torch import Tensor

from compress.data.images import MAX_IMAGES, Preparation, crop
from compress.errors import InputError
from compress.recipe.part import Part
from compress.registry import sources

QUESTIONS = ("Describe the picture.", "What does the photograph show?", "")
"""In front of what is written, in turns."""


def captioned(data: Part | str, samples: int, prepare: Preparation, seed: int) -> tuple[Tensor, list[str]]:
    """`samples` images `[samples, channels, height, width]` and their texts, from a source of both or a file.

    Every image is taken as often as another, each time another part of it. Raises InputError for a source without both.
    """
    part = data if isinstance(data, Part) else Part("pairs", {"path": str(data)})
    entry = sources.get(part.name)
    if entry.meta.gives != "captions":
        known = ", ".join(name for name in sources.names() if sources.get(name).meta.gives == "captions")
        raise InputError(
            f"calibrate.data: {part.name} gives {entry.meta.gives}, and the model reads images with text; "
            f"take {known} or random"
        )
    found: list[tuple[Tensor, str]] = list(islice(part.bind(sources)(), MAX_IMAGES))
    if not found:
        raise InputError(f"calibrate.data: {part} gives no image")
    channels: Any = len(prepare.mean)
    drawn = [found[(i + seed) % len(found)] for i in range(samples)]
    images = [crop(image, prepare.size, channels, seed * 1_000_003 + i) for i, (image, _) in enumerate(drawn)]
    asked = (QUESTIONS[(i // len(found)) % len(QUESTIONS)] for i in range(samples))
    return prepare(torch.stack(images)), [f"{ask} {text}".strip() for ask, (_, text) in zip(asked, drawn, strict=True)]
