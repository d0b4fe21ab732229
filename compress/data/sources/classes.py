"""Images in folders, one for each class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from compress.data.sources.pictures import SUFFIXES, read_picture
from compress.errors import InputError
from compress.registry import sources


@sources.add("classes", gives="classes")
def classes(*, path: str) -> Iterator[tuple[Tensor, str]]:
    """A folder with a folder of images for each class, which is called as the model calls it; uint8
    `[height, width, 3]` and the class, one of each in turns.

    Raises InputError where there is no such folder, and for a file that cannot be read.
    """
    root = Path(path).expanduser()
    folders = sorted(one for one in root.iterdir() if one.is_dir()) if root.is_dir() else []
    files = {one.name: sorted(x for x in one.rglob("*") if x.suffix.lower() in SUFFIXES) for one in folders}
    if not any(files.values()):
        raise InputError(f"{path}: no folders with images; each is called as its class")
    for place in range(max(map(len, files.values()))):
        for name, found in files.items():
            if place < len(found):
                yield read_picture(found[place]), name
