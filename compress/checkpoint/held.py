"""A module in memory as a checkpoint: its tensors, and what makes it again without them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from xxhash import xxh3_128

from compress.checkpoint.header import TensorSpec
from compress.checkpoint.open import Checkpoint


class Architecture(Protocol):
    """What makes the module of a checkpoint that has no config; see `compress.model.skeleton`."""

    @property
    def cls(self) -> type[nn.Module]:
        """The module's class."""
        ...

    def graph(self, module: nn.Module, example: Any) -> Any:
        """The dependency graph (`compress.graph`) of an `empty` module, of a forward of the example."""
        ...

    def empty(self) -> nn.Module:
        """The module in evaluation mode with everything on the meta device."""
        ...

    def runnable(self, dtype: torch.dtype) -> nn.Module:
        """The same with all that is not stored real, floating numbers of the module's own dtype among it as `dtype`."""
        ...


@dataclass(eq=False)
class HeldCheckpoint(Checkpoint):
    """`held`: name → tensor, on any device, each tensor once. `folder` is the name of the class, for messages."""

    held: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    architecture: Architecture | None = field(default=None, repr=False)  # pyright: ignore[reportIncompatibleVariableOverride]

    def read(self, name: str) -> Tensor:
        """The tensor called `name`, in memory of its own on the CPU."""
        return self.held[name].detach().to("cpu", copy=True)

    @cached_property
    def digest(self) -> str:
        """Hash of the tensors' names, dtypes, shapes and content; of the module's code it knows nothing."""
        digest = blake2b(digest_size=20)
        for name, spec in sorted(self.tensors.items()):
            content = self.held[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            digest.update(json.dumps([name, str(spec.dtype), spec.shape]).encode() + xxh3_128(content.data).digest())
        return digest.hexdigest()


def hold(held: Mapping[str, Tensor], architecture: Architecture) -> HeldCheckpoint:
    """The checkpoint of the tensors `held` of a module that `architecture` makes."""
    place = Path(architecture.cls.__name__)
    specs = {name: TensorSpec(name, place, tensor.dtype, tuple(tensor.shape)) for name, tensor in held.items()}
    return HeldCheckpoint(place, {}, specs, [], held=held, architecture=architecture)
