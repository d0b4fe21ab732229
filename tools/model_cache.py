"""Where models that tools make are kept, each of them whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Protocol

from compress.files.cache import cache_folder


class Saved(Protocol):
    """A model or a tokenizer of transformers."""

    def save_pretrained(self, folder: Path, /) -> object:
        """Write the files into `folder`."""
        ...


def folder(name: str) -> Path:
    """The folder of the model `name`, which need not be there yet."""
    return cache_folder() / "models" / name


def store(name: str, *parts: Saved) -> Path:
    """Save a model and what belongs to it as `name`, in place of an earlier one; the folder appears by a rename."""
    target = folder(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{name}.partial-{os.getpid()}")
    try:
        for part in parts:
            part.save_pretrained(partial)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target
