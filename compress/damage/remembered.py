"""Measured divergences on disk: a second size of the same model and data asks for few new ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

import numpy as np

from compress.damage.block import Kept
from compress.files.cache import cache_folder, new_file

VERSION = 1
"""Raised when what is measured changes, so that older files are not read."""


class Remembered:
    """Candidate → its divergence, of the model, data and repair that `key` stands for; a small file of the cache."""

    def __init__(self, key: str) -> None:
        name = blake2b(f"{VERSION} {key}".encode(), digest_size=16).hexdigest()
        self.file: Path = cache_folder() / "divergences" / f"{name}.json"
        self._values = self._read()

    def get(self, kept: Kept) -> float | None:
        """None where it was not measured."""
        return self._values.get(_digest(kept))

    def put(self, values: Mapping[str, float]) -> None:
        """Keep more of them, by `of` a candidate; what another process has written meanwhile stays."""
        self._values = {**self._read(), **values}
        with new_file(self.file) as opened:
            opened.write(json.dumps(self._values).encode())

    def note(self, values: Mapping[str, float]) -> None:
        """Know more of them, in a process that does not write."""
        self._values |= values

    @staticmethod
    def of(kept: Kept) -> str:
        """What stands for a candidate."""
        return _digest(kept)

    def _read(self) -> dict[str, float]:
        try:
            found = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # not there, or damaged: measured again
            return {}
        whole = isinstance(found, dict) and all(isinstance(value, float) for value in found.values())
        return found if whole else {}


def _digest(kept: Kept) -> str:
    """Families that stay whole do not count."""
    digest = blake2b(digest_size=12)
    for name in sorted(kept):
        if not kept[name].all():
            digest.update(f"{name} {len(kept[name])} ".encode())
            digest.update(np.packbits(kept[name]).tobytes())
    return digest.hexdigest()
