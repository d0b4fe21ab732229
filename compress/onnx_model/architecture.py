"""An .onnx file as a checkpoint: its weights by the names of the module that runs it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from compress.checkpoint.held import HeldCheckpoint, hold
from compress.errors import ModelError
from compress.graph.example import Example
from compress.graph.families import Graph
from compress.inputs.given import declare
from compress.onnx_model.arrays import to_tensor
from compress.onnx_model.examples import SIZES, Sizes
from compress.onnx_model.file import OnnxFile
from compress.onnx_model.inputs import OnnxInputs
from compress.onnx_model.module import OnnxModule
from compress.onnx_model.traced import Traced, trace_onnx


@dataclass(frozen=True)
class OnnxArchitecture:
    """What makes the module of `file`."""

    file: OnnxFile

    @property
    def cls(self) -> type[nn.Module]:
        """The one class for all of them."""
        return OnnxModule

    def empty(self) -> nn.Module:
        """The module on the meta device."""
        module = OnnxModule(self.file, device="meta")
        declare(module, OnnxInputs(module, self._found[1]))
        return module

    def runnable(self, dtype: torch.dtype) -> nn.Module:
        """The same: what is not stored is plain numbers, which are always there."""
        return self.empty()

    def graph(self, module: nn.Module, example: Example) -> Graph:
        """The families of what is traced already."""
        return self.traced.graph

    @property
    def traced(self) -> Traced:
        """The graph with what was seen of it. Raises ModelError, naming the node, where one cannot be run."""
        return self._found[0]

    @property
    def sizes(self) -> Sizes:
        """At which it was traced."""
        return self._found[1]

    @cached_property
    def _found(self) -> tuple[Traced, Sizes]:
        first: ModelError | None = None
        for sizes in SIZES:
            try:
                inputs = OnnxInputs(OnnxModule(self.file, device="meta"), sizes)
                return trace_onnx(self.file, inputs.example()), sizes
            except ModelError as error:
                first = first or error
        assert first is not None
        raise first


class _Arrays(Mapping[str, Tensor]):
    """The weights of a module, each made when it is asked for."""

    def __init__(self, file: OnnxFile) -> None:
        module = OnnxModule(file, device="meta")
        first = {id(tensor): name for name, tensor in reversed(module.state_dict(keep_vars=True).items())}
        self._file = file
        self._names = {
            name: module.stored_as[name] for name in sorted(first.values(), key=list(module.state_dict()).index)
        }

    def __getitem__(self, name: str) -> Tensor:
        return to_tensor(self._file.arrays[self._names[name]])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(eq=False)
class OnnxCheckpoint(HeldCheckpoint):
    """The weights in an .onnx file."""

    @cached_property
    def digest(self) -> str:
        """Hash of the weights, as of any module in memory, and of the graph that reads them."""
        architecture = cast(OnnxArchitecture, self.architecture)
        digest = blake2b(HeldCheckpoint.digest.func(self).encode(), digest_size=20)  # pyright: ignore[reportAttributeAccessIssue]
        for node in architecture.file.nodes:
            digest.update(node.proto.SerializeToString(deterministic=True))
        return digest.hexdigest()


def open_onnx(path: Path, weights: Collection[str] = ()) -> OnnxCheckpoint:
    """The model in an .onnx file, of which `weights` are known to be some.

    Raises InputError where it is none, ModelError where it holds what cannot be looked into.
    """
    file = OnnxFile(path, weights)
    architecture = OnnxArchitecture(file)
    found = hold(_Arrays(file), architecture)
    return OnnxCheckpoint(path, {}, found.tensors, [], held=found.held, architecture=architecture)
