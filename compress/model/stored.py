"""A pruned module in a folder: its weights, and what makes it again of the dense module that the caller builds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.checkpoint.open import open_tensors
from compress.checkpoint.weight_files import SAFE, weight_files
from compress.checkpoint.write import ShardWriter
from compress.errors import InputError, ModelError
from compress.files.ordinary import check_ordinary
from compress.model.answers import check_answer, write_answer
from compress.model.builders import Build, builder, built
from compress.model.changes import Changes, fill
from compress.model.skeleton import main_dtype

FILE = "module.json"
VERSION = 1
"""Raised when the file's form changes."""

SHARD = 5_000_000_000
"""Bytes of weights in one file."""


@dataclass(frozen=True)
class StoredModule:
    """What module.json holds: the name of the module's class, the `changes` step by step, and what made the dense
    module, as far as it has a name: `build` with its `arguments`. `example`: what the answer beside the weights is to,
    see `compress.model.answers`."""

    cls: str
    changes: Sequence[Changes]
    build: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    example: Any = None

    def write(self, folder: Path, module: nn.Module, call: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
        """Write the weights of `module`, what it answers to the arguments `call`, and module.json into `folder`."""
        tensors = first_names(module)
        specs = [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()]
        with ShardWriter(folder, specs, shard_bytes=SHARD) as writer:
            for name, tensor in tensors.items():
                writer.add(name, tensor)
        held = {
            "version": VERSION,
            "class": self.cls,
            "build": self.build,
            "arguments": dict(self.arguments),
            "changes": [changes.data() for changes in self.changes],
            "example": write_answer(folder, module, *call),
        }
        try:
            text = json.dumps(held, indent=1, ensure_ascii=False)
        except TypeError as error:
            raise InputError(f"arguments: {error}; plain values are stored, pass others to compress.load") from None
        (folder / FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> StoredModule:
        """Raises InputError where the file is none of this version."""
        file = folder / FILE
        check_ordinary(file)
        try:
            held = json.loads(file.read_text(encoding="utf-8"))
            if held["version"] != VERSION:
                raise InputError(f"{file}: of version {held['version']}, this program reads {VERSION}; prune anew")
            changes = [Changes.read(one) for one in held["changes"]]
            return cls(held["class"], changes, held["build"], held["arguments"], held["example"])
        except FileNotFoundError:
            raise InputError(
                f"{folder}: has no {FILE}, as a saved result of compress.prune has; leave `build` out for other models"
            ) from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"{file}: not what makes a pruned module ({error})") from None

    def load(self, folder: Path, build: Build | str | None, arguments: Mapping[str, Any] | None) -> nn.Module:
        """The module in `folder`, in evaluation mode: the dense one that `build(**arguments)` makes, with the changes
        and the stored weights.

        Raises InputError where nothing says how to build it, or that does not work, ModelError where it makes another
        module than was pruned, which what it answers to the example tells.
        """
        if build is None:
            hint = f" (it was saved as made by {self.build!r})" if self.build else ""
            raise InputError(
                f"{folder}: holds a pruned {self.cls}, whose code is yours{hint}; pass `build=`, a function that makes "
                f"the dense {self.cls}, or its name as 'package.module:function'"
            )
        module = built(builder(build), self.arguments if arguments is None else arguments)
        if type(module).__name__ != self.cls:
            raise ModelError(f"{folder}: holds a pruned {self.cls}, and `build` made a {type(module).__name__}")
        for changes in self.changes:
            changes.apply(module)
        fill(module, self._tensors(folder, module))
        if self.example is not None:
            check_answer(folder, module, self.example, main_dtype(module) or torch.float32)
        return module.eval()

    def _tensors(self, folder: Path, module: nn.Module) -> dict[str, Tensor]:
        """The stored tensors, all of which the module has a place for and which are all that it needs."""
        opened = {}
        for file in weight_files(folder, SAFE, {})[0]:
            held = open_tensors(file)
            opened.update(dict.fromkeys(held.tensors, held))
        wanted = {name: tuple(tensor.shape) for name, tensor in first_names(module).items()}
        stored = {name: held.tensors[name].shape for name, held in opened.items()}
        if wanted != stored:
            name = min(set(wanted.items()) ^ set(stored.items()))[0]
            raise ModelError(
                f"{folder}: {name} is {_shown(stored.get(name))} there, and {_shown(wanted.get(name))} in the "
                f"{self.cls} that `build` made; build the module that was pruned, with the same arguments"
            )
        return {name: held.read(name) for name, held in opened.items()}


def first_names(module: nn.Module) -> dict[str, Tensor]:
    """What a module stores, each tensor once, by the first of its names."""
    found: dict[int, str] = {}
    tensors = module.state_dict(keep_vars=True)
    for name, tensor in tensors.items():
        found.setdefault(id(tensor), name)
    return {name: tensors[name] for name in found.values()}


def _shown(shape: Sequence[int] | None) -> str:
    return "missing" if shape is None else str(list(shape))
