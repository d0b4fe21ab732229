"""Images and texts in local files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from compress.data.sources.pictures import read_picture
from compress.errors import InputError
from compress.files.ordinary import check_ordinary
from compress.registry import sources

CURE = 'a line is {"image": a path beside the file, "text": what it shows}'


@sources.add("pairs", gives="captions")
def pairs(*, path: str, image: str = "image", text: str = "text") -> Iterator[tuple[Tensor, str]]:
    """A .jsonl whose lines name a picture and what is written about it, or a folder with a `metadata.jsonl`.

    `image` and `text` are the lines' keys; paths are relative to the file. Raises InputError with the line that cannot
    be used.
    """
    root = Path(path).expanduser()
    file = root / "metadata.jsonl" if root.is_dir() else root
    if not file.exists() or file.suffix != ".jsonl":
        raise InputError(f"{file}: no such .jsonl; {CURE}")
    check_ordinary(file)
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            picture, written = row[image], row[text]
        except (ValueError, TypeError, KeyError):
            raise InputError(f"{file}:{number}: no {image} and {text}; {CURE}") from None
        if not isinstance(picture, str) or not isinstance(written, str):
            raise InputError(f"{file}:{number}: {image} and {text} are no strings; {CURE}")
        yield read_picture(file.parent / picture), written
