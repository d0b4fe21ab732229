"""What a case of bad input is, and the edits that make one of a good model."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Prepare = Callable[[Path], object]

PRUNE = "m.yaml base out --no-evaluate"
CALIBRATED = "w.yaml base out --no-evaluate"
"""As `PRUNE`, by a recipe that reads text.txt."""


@dataclass(frozen=True)
class Case:
    """A `command` in a folder with a good model (`base`), recipes and text, after `prepare` has spoiled something.

    It ends with `code`, saying all of `says`: the place (file, field, value) and the cure. 0 is for what is rightly
    accepted. `env` is added to the environment; of address space it gets `memory` bytes more than it has.
    """

    name: str
    says: tuple[str, ...]
    prepare: Prepare = lambda folder: None
    command: str = PRUNE
    code: int = 2
    env: Mapping[str, str] = field(default_factory=dict)
    memory: int | None = None


def config(folder: Path, **changes: Any) -> None:
    """Changes fields of the model's config.json; None takes one away."""
    edit_json(folder / "base/config.json", **changes)


def edit_json(file: Path, **changes: Any) -> None:
    data = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in data.items() if value is not None}))


def weights(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Stores the model's tensors again after `change` has had its way with them."""
    file = folder / "base/model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, metadata={"format": "pt"})


def header(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the header of the model's file, and none of the bytes behind it."""
    file = folder / "base/model.safetensors"
    raw = file.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    content = json.loads(raw[8 : 8 + length])
    change(content)
    encoded = json.dumps(content).encode()
    file.write_bytes(struct.pack("<Q", len(encoded)) + encoded + raw[8 + length :])


def shard(folder: Path) -> Path:
    """The model in two shards with an index; returns the index."""
    base = folder / "base"
    tensors = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    names = sorted(tensors)
    placed = {name: f"model-0000{1 + (i >= len(names) // 2)}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(placed.values()):
        save_file({name: tensors[name] for name in names if placed[name] == file}, base / file)
    index = base / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    return index


def pickled(folder: Path) -> None:
    """The model as a pickle."""
    file = folder / "base/model.safetensors"
    torch.save(load_file(file), folder / "base/pytorch_model.bin")
    file.unlink()
