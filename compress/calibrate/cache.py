"""Statistics on disk: what one recipe gathered, the next one with the same model and data need not.

One safetensors file per statistic and block, below the cache's folder, so that an interrupted run leaves what it
finished. Each carries a checksum of the value and of what it is the value of.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from xxhash import xxh3_128

from compress.checkpoint.header import read_header
from compress.checkpoint.seen import Stamp, fill
from compress.checkpoint.write import layout
from compress.console import warn
from compress.errors import InputError
from compress.files.cache import cache_folder, new_file

VERSION = 3
"""Raised when a statistic's meaning or its file's form changes, so that older files are not read."""


class Stats(Mapping[str, Mapping[str, Tensor]]):
    """`stats[statistic][key]`, float32; read from disk when asked for, where there is a folder.

    `tags` tell values of one (statistic, key) apart that mean different things.
    """

    def __init__(self, folder: Path | None = None, tags: Mapping[tuple[str, str], str] | None = None) -> None:
        self.folder, self._tags = folder, tags or {}
        self._here: dict[str, dict[str, Tensor]] = {}
        self._files: dict[str, dict[str, _Entry]] = {}

    def put(self, statistic: str, key: str, value: Tensor) -> None:
        """Keep a value: in memory, or on disk when there is a folder and another process is not doing so."""
        if self.folder is None:
            self._here.setdefault(statistic, {})[key] = value
            return
        entry = self._entry(statistic, key)
        entry.write(value)
        self._files.setdefault(statistic, {})[key] = entry

    def drop(self, keys: Iterable[str]) -> None:
        """Forget what is in memory of these keys."""
        for values in self._here.values():
            for key in set(keys) & values.keys():
                del values[key]

    def find(self, statistic: str, keys: Iterable[str]) -> set[str]:
        """Which of the keys are on disk from earlier; what is damaged there is named and counts as missing."""
        if self.folder is None:
            return set()
        entries = {key: self._entry(statistic, key) for key in keys}
        found = {key: entry for key, entry in entries.items() if entry.file.exists() and entry.whole()}
        self._files.setdefault(statistic, {}).update(found)
        return set(found)

    def __getitem__(self, statistic: str) -> Mapping[str, Tensor]:
        if statistic not in self._here and statistic not in self._files:
            raise KeyError(statistic)
        return _Values(self._here.get(statistic, {}), self._files.get(statistic, {}))

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._here, *self._files]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def _entry(self, statistic: str, key: str) -> _Entry:
        assert self.folder is not None
        tagged = self._tagged(statistic, key)
        file = self.folder / statistic / f"{_short(tagged)}.safetensors"
        return _Entry(file, f"{self.folder.name} {statistic} {tagged}")

    def _tagged(self, statistic: str, key: str) -> str:
        tag = self._tags.get((statistic, key))
        return f"{key}@{tag}" if tag else key


class _Entry(NamedTuple):
    """One value in `file`; `name` says of which model and data, which statistic and key."""

    file: Path
    name: str

    def write(self, value: Tensor) -> None:
        """Raises InputError when the cache's disk is full."""
        value = value.contiguous()
        head, _ = layout([("value", value.dtype, value.shape)], {"checksum": self._checksum(value)})
        with new_file(self.file) as opened:
            opened.write(head)
            opened.write(_bytes(value))
        _whole[self.file] = Stamp.of(self.file)

    def read(self) -> Tensor:
        """The value. Raises InputError when the file is damaged."""
        value = self._value()
        if value is None:
            raise InputError(f"{self.file}: damaged while it was in use; run again, and it is gathered again")
        return value

    def whole(self) -> bool:
        """Whether the file is what was written; else a warning says so.

        This reads it all, as only now can it still be gathered again; but once in a process, as long as it stays.
        """
        stamp = Stamp.of(self.file)
        if _whole.get(self.file) != stamp:
            if self._value() is None:
                warn(f"{self.file}: damaged, so this statistic is gathered again")
                return False
            _whole[self.file] = stamp
        return True

    def _value(self) -> Tensor | None:
        """What the file holds, if it is what was written."""
        try:
            specs, raw = read_header(self.file)
            checksum, spec = json.loads(raw)["__metadata__"]["checksum"], specs["value"]
            flat = torch.empty(spec.bytes, dtype=torch.uint8)
            fill(flat, self.file, spec.start)
            value = flat.view(spec.dtype).reshape(spec.shape)
        except Exception:  # whatever the damage has made of the header
            return None
        return value if self._checksum(value) == checksum else None

    def _checksum(self, value: Tensor) -> str:
        """Of the values, the dtype, the shape and the name; `value` is contiguous."""
        digest = xxh3_128(f"{self.name} {value.dtype} {list(value.shape)} ".encode())
        digest.update(_bytes(value))
        return digest.hexdigest()


def _bytes(value: Tensor) -> memoryview:
    return value.reshape(-1).view(torch.uint8).numpy().data


_whole: dict[Path, Stamp] = {}
"""Entries that this process has written or checked, as they were then."""


class _Values(Mapping[str, Tensor]):
    def __init__(self, here: Mapping[str, Tensor], files: Mapping[str, _Entry]) -> None:
        self._here, self._files = here, files

    def __getitem__(self, key: str) -> Tensor:
        if key in self._here:
            return self._here[key]
        return self._files[key].read()

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
