"""Images in local files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from compress.errors import InputError
from compress.files.ordinary import check_ordinary
from compress.registry import sources

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@sources.add("pictures", gives="images")
def pictures(*, path: str) -> Iterator[Tensor]:
    """An image, or a folder of them, in order of their names; uint8 `[height, width, 3]`, colours as RGB.

    Raises InputError for a path where there is none, and for a file that cannot be read.
    """
    root = Path(path).expanduser()
    if not root.exists():
        raise InputError(f"{path}: no such file or folder; calibrate.data names where the images are")
    files = sorted(file for file in root.rglob("*") if file.suffix.lower() in SUFFIXES) if root.is_dir() else [root]
    if not files:
        raise InputError(f"{path}: no file that ends in {', '.join(SUFFIXES)}")
    yield from map(read_picture, files)


def read_picture(file: Path) -> Tensor:
    """An image file as uint8 `[height, width, 3]`, colours as RGB. Raises InputError for one that cannot be read."""
    from PIL import Image

    check_ordinary(file)
    try:
        with Image.open(file) as image:
            return torch.from_numpy(np.array(image.convert("RGB")))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{file}: not readable as an image ({error}); mend or remove it") from None
