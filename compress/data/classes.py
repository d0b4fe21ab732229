"""Images with the class that each belongs to, as a model of vision takes them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compress.data.images import Preparation, resized
from compress.errors import InputError
from compress.recipe.part import Part
from compress.registry import sources


def has_classes(data: Any) -> bool:
    """Whether a recipe's data is a source of images with classes."""
    return isinstance(data, Part) and sources.get(data.name).meta.gives == "classes"


def part_of(file: Path | None) -> Part:
    """What a user names by `--data`: a source of classes, or a folder. Raises InputError where it is neither."""
    known = [name for name in sources.names() if sources.get(name).meta.gives == "classes" and name != "classes"]
    if file is None or not (str(file) in known or file.is_dir()):
        raise InputError(
            f"--data: a classifier of images is measured on {' or '.join(known)}, or a folder with a folder of images "
            "for each class"
        )
    if str(file) not in known:
        return Part("classes", {"path": str(file)})
    return Part(str(file), {"split": "test"}) if "split" in sources.get(str(file)).parameters else Part(str(file))


def classified(data: Part, samples: int, prepare: Preparation, names: Mapping[int, str]) -> tuple[Tensor, Tensor]:
    """The first `samples` images `[samples, channels, height, width]`, whole, and their classes int64 `[samples]`.

    A class is a number or one of the model's `names`. Raises InputError for another one, and where there is no image.
    """
    numbers: dict[Any, int] = {name: number for number, name in names.items()} | {number: number for number in names}
    found = list(islice(data.bind(sources)(), samples))
    if not found:
        raise InputError(f"{data}: gives no image")
    for _, label in found:
        if label not in numbers:
            known = ", ".join(map(str, names.values()))
            raise InputError(f"{data}: {label!r} is no class of the model (it has {known})")
    channels = len(prepare.mean)
    images = [resized(image.permute(2, 0, 1)[None].float() / 255, prepare.size, channels) for image, _ in found]
    return prepare(torch.stack(images)), torch.tensor([numbers[label] for _, label in found])
