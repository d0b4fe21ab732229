"""What a criterion has learned, as a safetensors file: in the cache, and where a recipe names one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from xxhash import xxh3_128

from compress.checkpoint.header import read_header
from compress.console import say, warn
from compress.errors import InputError
from compress.files.cache import cache_folder, new_file

VERSION = 1
"""Raised when the file's form or the meaning of what criteria learn changes, so that older files are not read."""

KEY = "compress_learned"


@dataclass(frozen=True)
class About:
    """What was learned: by which `criterion` with which `settings` and `seed`, of which `model` (its digest) and
    `families`, on which `data` (their key, "" for none)."""

    criterion: str
    settings: Mapping[str, Any]
    seed: int
    model: str
    families: Sequence[str]
    data: str = ""

    @property
    def cache(self) -> Path:
        """Where it is kept."""
        text = json.dumps([VERSION, asdict(self)], sort_keys=True)
        name = f"{self.criterion}-{blake2b(text.encode(), digest_size=12).hexdigest()}.safetensors"
        return cache_folder() / "learned" / name


def cached(about: About) -> Mapping[str, Tensor] | None:
    """What the cache has, None when there is none; what is damaged there is named and counts as none."""
    if not about.cache.exists():
        return None
    try:
        return read_learned(about.cache, about.criterion)[0]
    except InputError as error:
        warn(f"{error}; it is learned anew")
        return None


def read_learned(file: Path, criterion: str) -> tuple[Mapping[str, Tensor], About]:
    """The tensors of a file and what they are of.

    Raises InputError when it cannot be read, is damaged, or is not what this criterion learned.
    """
    cure = f"name a file that {criterion} wrote, or one that is not there yet"
    _, raw = read_header(file)
    try:
        noted = json.loads(raw)["__metadata__"]
        said = json.loads(noted[KEY])
        version, about = said.pop("version"), About(**said)
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{file}: not what a criterion has learned; {cure}") from None
    if version != VERSION:
        raise InputError(f"{file}: of version {version}, this program reads {VERSION}; {cure}")
    if about.criterion != criterion:
        raise InputError(f"{file}: criterion {about.criterion} learned it, not {criterion}; {cure}")
    try:
        tensors = load(file.read_bytes())
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file}: damaged ({error}); {cure}") from None
    if _checksum(tensors) != noted.get("checksum"):
        raise InputError(f"{file}: damaged, its checksum is another; {cure}")
    return tensors, about


def write_learned(file: Path | None, about: About, tensors: Mapping[str, Tensor]) -> None:
    """Write what was learned to `file`, whole or not at all; None: the cache. Raises InputError where it cannot be."""
    own = {name: value.contiguous() for name, value in tensors.items()}
    said = json.dumps({"version": VERSION, **asdict(about)}, sort_keys=True)
    data = save(own, {KEY: said, "checksum": _checksum(own)})
    if file is None:
        with new_file(about.cache) as opened:
            opened.write(data)
        return
    partial = file.with_name(f".{os.getpid()}-{file.name}")
    try:
        partial.write_bytes(data)
        partial.replace(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(
            f"{file}: what {about.criterion} learned cannot be written there: {error.strerror}; name another file"
        ) from None
    say(f"{file}: what {about.criterion} learned, to be named in other recipes")


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = xxh3_128()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)} ".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
