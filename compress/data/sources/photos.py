"""Photographs that come with a package, without a network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from compress.errors import InputError
from compress.registry import sources

CALIBRATE = ("astronaut", "brick", "camera", "coins", "grass", "hubble_deep_field", "page", "retina", "rocket")
KEPT_BACK = ("chelsea", "coffee", "gravel", "moon", "immunohistochemistry")
"""Those that nothing is downloaded for."""


@sources.add("photos", gives="images")
def photos(*, split: Literal["train", "test"] = "train") -> Iterator[Tensor]:
    """The sample images of scikit-image, uint8 `[height, width, 3]`; `test` are those that `train` keeps back.

    Raises InputError where scikit-image is not installed.
    """
    try:
        import skimage.data
    except ImportError:
        raise InputError("photos: needs scikit-image; pip install 'compress-models[vision]'") from None
    for name in CALIBRATE if split == "train" else KEPT_BACK:
        image: Any = torch.from_numpy(getattr(skimage.data, name)().copy())
        yield image[..., None].expand(-1, -1, 3) if image.dim() == 2 else image[..., :3]
