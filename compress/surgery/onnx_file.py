"""An edited ONNX graph as a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import Tensor

from compress.errors import VerifyError
from compress.graph.uses import bias_name
from compress.model.model import Model
from compress.onnx_model.architecture import OnnxArchitecture, open_onnx
from compress.onnx_model.write import changed_proto, save_proto
from compress.surgery.edit import Edit, Written
from compress.surgery.verify.masked import spread


@dataclass
class InOnnxFile:
    """The file at `path`, which is not there yet. Its `tensors` by name, and what the families `kept`."""

    path: Path
    tensors: dict[str, Tensor] = field(default_factory=dict)
    kept: dict[str, np.ndarray] = field(default_factory=dict)

    def write(self, source: Model, edit: Edit) -> None:
        """Take the tensors, and write them with the sizes that follow. Raises ValueError where the edit does not
        produce just what it declares."""
        specs = {name: (dtype, tuple(shape)) for name, dtype, shape in edit.specs}

        def put(name: str, tensor: Tensor) -> None:
            if specs.get(name) != (tensor.dtype, tuple(tensor.shape)):
                raise ValueError(f"{name} is {tensor.dtype} {list(tensor.shape)}, not {specs.get(name)}")
            self.tensors[name] = tensor.detach().cpu()

        edit.produce(put)
        if lost := specs.keys() - self.tensors.keys():
            raise ValueError(f"{len(lost)} tensors were never produced, among them {min(lost)}")
        self.kept = dict(edit.kept)
        traced = _architecture(source).traced
        changes, sizes = traced.cut(self.kept)
        proto = changed_proto(traced.module, self.tensors, changes, sizes)
        save_proto(proto, self.path, external=traced.module.onnx_file.external)

    def opened(self, source: Model) -> Written:
        """The file as a checkpoint. Raises VerifyError where its weights go by other names than those written."""
        arrays = _architecture(source).traced.module.stored_as
        found = open_onnx(self.path, [arrays.get(name, name) for name in self.tensors])
        if lost := self.tensors.keys() ^ found.tensors.keys():
            raise VerifyError(f"{self.path.name}: {min(lost)} is not where it was written")
        return Written(self.path.parent, found)

    def masked(self, source: Model) -> Any:
        """The input's file with the written weights, zeros where something was removed: what it must agree with."""
        graph, whole = source.graph, dict[str, Tensor]()
        for name, tensor in self.tensors.items():
            masks = graph.masks(name, self.kept) if name in graph.layouts else self._masks_of_bias(source, name)
            for dim, mask in masks.items():
                tensor = spread(tensor, dim, mask)
            whole[name] = tensor
        return changed_proto(_architecture(source).traced.module, whole)

    def _masks_of_bias(self, source: Model, bias: str) -> dict[int, np.ndarray]:
        """Of a bias that a repair added: what of its weight's outputs stays."""
        graph = source.graph
        weight = next(name for name in graph.layouts if bias_name(name) == bias)
        inputs = {
            member.dim
            for f in graph.families.values()
            for member in f.members
            if member.tensor == weight and member.role == "in"
        }
        masks = graph.masks(weight, self.kept)
        outputs = [mask for dim, mask in masks.items() if dim not in inputs]
        return {0: outputs[0]} if outputs else {}


def _architecture(source: Model) -> OnnxArchitecture:
    return cast(OnnxArchitecture, source.checkpoint.architecture)
