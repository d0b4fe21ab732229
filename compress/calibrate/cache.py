"""Statistics on disk: what one recipe gathered, the next one with the same model and data need not.

One safetensors file per statistic and block, below `COMPRESS_CACHE` (else `~/.cache/compress`), so that an
interrupted run leaves what it finished.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from compress.cache import cache_folder

VERSION = 1
"""Raised when a statistic's meaning changes, so that older files are not read."""


class Stats(Mapping[str, Mapping[str, Tensor]]):
    """`stats[statistic][key]`, float32; read from disk when asked for, where there is a folder.

    `tags` tell values of one (statistic, key) apart that mean different things.
    """

    def __init__(self, folder: Path | None = None, tags: Mapping[tuple[str, str], str] | None = None) -> None:
        self.folder, self._tags = folder, tags or {}
        self._here: dict[str, dict[str, Tensor]] = {}
        self._files: dict[str, dict[str, Path]] = {}

    def put(self, statistic: str, key: str, value: Tensor) -> None:
        """Keep a value: in memory, or on disk when there is a folder and another process is not doing so."""
        if self.folder is None:
            self._here.setdefault(statistic, {})[key] = value
            return
        file = self._file(statistic, key)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{os.getpid()}-{file.name}")
        save_file({"value": value.contiguous()}, partial, metadata={"key": self._tagged(statistic, key)})
        partial.replace(file)
        self._files.setdefault(statistic, {})[key] = file

    def drop(self, keys: Iterable[str]) -> None:
        """Forget what is in memory of these keys."""
        for values in self._here.values():
            for key in set(keys) & values.keys():
                del values[key]

    def find(self, statistic: str, keys: Iterable[str]) -> set[str]:
        """Which of the keys are on disk from earlier; a damaged file counts as none."""
        if self.folder is None:
            return set()
        found = {key for key in keys if _whole(self._file(statistic, key), self._tagged(statistic, key))}
        self._files.setdefault(statistic, {}).update({key: self._file(statistic, key) for key in found})
        return found

    def __getitem__(self, statistic: str) -> Mapping[str, Tensor]:
        if statistic not in self._here and statistic not in self._files:
            raise KeyError(statistic)
        return _Values(self._here.get(statistic, {}), self._files.get(statistic, {}))

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._here, *self._files]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def _file(self, statistic: str, key: str) -> Path:
        assert self.folder is not None
        return self.folder / statistic / f"{_short(self._tagged(statistic, key))}.safetensors"

    def _tagged(self, statistic: str, key: str) -> str:
        tag = self._tags.get((statistic, key))
        return f"{key}@{tag}" if tag else key


class _Values(Mapping[str, Tensor]):
    def __init__(self, here: Mapping[str, Tensor], files: Mapping[str, Path]) -> None:
        self._here, self._files = here, files

    def __getitem__(self, key: str) -> Tensor:
        if key in self._here:
            return self._here[key]
        with safe_open(self._files[key], framework="pt") as opened:
            return opened.get_tensor("value").clone()

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._here, *self._files]))

    def __len__(self) -> int:
        return len(self._here.keys() | self._files.keys())


def statistics_folder(model: str, data: str) -> Path:
    """The folder for statistics of a model (its digest) on some data (their key)."""
    return cache_folder() / "statistics" / blake2b(f"{VERSION} {model} {data}".encode(), digest_size=16).hexdigest()


def _short(key: str) -> str:
    """A file name: readable, and unique for long names too."""
    return f"{key[-80:]}-{blake2b(key.encode(), digest_size=6).hexdigest()}"


def _whole(file: Path, key: str) -> bool:
    try:
        with safe_open(file, framework="pt") as opened:
            return (opened.metadata() or {}).get("key") == key and "value" in opened.keys()  # noqa: SIM118
    except (OSError, SafetensorError):
        return False
