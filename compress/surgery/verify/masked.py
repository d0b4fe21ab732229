"""The dense model with zeros where something was removed: what the pruned one has to compute."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.errors import VerifyError
from compress.graph.names import Names
from compress.graph.projection import added
from compress.graph.values import Unread
from compress.inputs.batch import Batch, given
from compress.model.build import runnable_model
from compress.model.model import Model
from compress.model.weights import Weights
from compress.output_format.find import bias_name, repaired_weights
from compress.surgery.experts import Mixes, mixed_tensors
from compress.surgery.hidden_experts import hidden, hide_experts
from compress.surgery.take import take
from compress.surgery.verify.forward import Advance, output

Kept = Mapping[str, np.ndarray]


class Scattered(Weights):
    """The tensors of the pruned model in the shapes of the dense one, zeros where something was removed."""

    def __init__(self, source: Model, kept: Kept, pruned: Weights, model: nn.Module, changed: set[str]) -> None:
        super().__init__(source.checkpoint, model)
        self._changed = changed  # by a repair
        self._graph, self._kept, self._pruned = source.graph, kept, pruned
        self._names = Names(source.graph, kept)

    def read(self, name: str, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> Tensor:
        first = self.first_name(name)
        new = self._names.new(first)
        if new is None:
            return torch.zeros(self.current(first).shape, dtype=dtype or self.dtype(first), device=device)
        held = self._pruned.current(new)
        as_asked = not held.is_meta and held.dtype == dtype and held.device == torch.device(device)
        tensor = held.detach() if as_asked else self._pruned.read(new, dtype, device)
        whole = super().read(first, dtype, device)
        for dim, mask in self._graph.masks(first, self._kept).items():
            tensor = spread(tensor, dim, mask)
            whole = spread(take(whole, dim, np.flatnonzero(mask)), dim, mask)
        if first not in self._changed and not torch.equal(tensor, whole):
            raise VerifyError(f"{new} is not the kept part of the input's {first}")
        return hidden(self._graph, first, self._kept, tensor)


def spread(tensor: Tensor, dim: int, mask: np.ndarray) -> Tensor:
    """The slices of `tensor` along `dim` at the kept positions of `mask`, zeros between."""
    shape = list(tensor.shape)
    shape[dim] = len(mask)
    whole = tensor.new_zeros(shape)
    return whole.index_copy_(dim, torch.from_numpy(np.flatnonzero(mask)).to(tensor.device), tensor)


def masked_output(
    source: Model,
    kept: Kept,
    biases: Iterable[str],
    pruned: Weights,
    batch: Batch,
    changed: set[str],
    advance: Advance,
) -> Tensor | None:
    """The masked dense model's output; None where blocks are gone whose result is more than hidden states.

    `biases` are those that a repair gave to weights without one, by their names in the input.

    `pruned`: the tensors as written, of which those not in `changed` must be the input's, sliced. Raises VerifyError.
    """
    names = Names(source.graph, kept)
    model = runnable_model(source.checkpoint)
    if names.removed and not _plain_blocks(source, batch):
        return None
    gone = source.graph.removed_blocks(kept)
    for block in names.removed:
        model.get_submodule(block).forward = _identity
    for family in (source.graph.families[name] for name in kept):
        if family.kind == "experts" and source.graph.block_of(family.members[0].tensor) not in gone:
            hide_experts(model, source.graph, family, kept[family.name])
    scattered = Scattered(source, kept, pruned, model, changed)
    for bias in biases:
        if (new := names.new(bias)) is not None:
            weight = bias.removesuffix("bias") + "weight"
            vector = pruned.read(new, torch.float32)
            rows = source.graph.masks(weight, kept).get(1 - repaired_weights(source, kept)[weight].dim)
            vector = vector if rows is None else spread(vector, 0, rows)
            if vector.any():
                model.get_submodule(bias.removesuffix(".bias")).register_forward_hook(_adding(vector))
    (found,) = output(model, scattered, source.graph.blocks, batch, advance)
    return found


def changed_tensors(source: Model, kept: Kept, repaired: bool, mixes: Mixes) -> set[str]:
    """Tensors that are not slices of the input's."""
    repairs: set[str] = set()
    for name in repaired_weights(source, kept) if repaired else ():
        vector = added(source.graph, name)
        repairs |= {name, bias_name(name) if vector is None else vector[0]}
    return repairs | set(mixed_tensors(source.graph, mixes))


def _adding(vector: Tensor) -> Any:
    return lambda module, args, output: output + vector


def _identity(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return hidden_states


def _plain_blocks(source: Model, batch: Batch) -> bool:
    """Whether blocks return their hidden states alone, seen in a forward on meta."""
    seen: list[bool] = []
    hooks = [
        source.module.get_submodule(block).register_forward_hook(
            lambda module, args, output: seen.append(isinstance(output, Tensor))
        )
        for block in dict.fromkeys(source.graph.blocks)
    ]
    try:
        with torch.no_grad(), torch.device("meta"), Unread() as mode:
            source.module(**mode.values.lend(given(batch)))
    finally:
        for hook in hooks:
            hook.remove()
    return bool(seen) and all(seen)
