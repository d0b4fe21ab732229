"""The fine-tuned model with its Δ pruned for trial, and how far its outputs move from the real one's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from compress.errors import InputError
from compress.evaluate.load import load_model
from compress.inputs.batch import Batch, given
from compress.model.build import empty_model, load_config, model_class
from compress.model.weights import Weights
from compress.steps.delta.difference import Difference
from compress.tasks.asked import asked
from compress.tasks.choose import task_of

TOP = 5
"""Logits of a token that are compared: those largest in the fine-tuned model."""

LARGEST = 8_000_000_000
"""Bytes of a checkpoint up to which it is loaded whole."""

Mask = Callable[[str, Tensor], Tensor]


@dataclass(frozen=True)
class Entry:
    """The entries of Δ that stay in one tensor, whose place in the model is `place`: their flat `positions`, the base's
    values there and Δ, all `[count]`."""

    place: Tensor
    positions: Tensor
    before: Tensor
    delta: Tensor


class Trial:
    """The fine-tuned model in float32, its pruned tensors replaceable by base + kept Δ / q.

    `measure` is what is compared: the logits of a model that has some (mean squared difference of the five largest of
    each token), else the last hidden states (mean absolute difference), both as the authors of DAREx do without labels.
    Raises InputError above 8 GB of weights.
    """

    def __init__(self, difference: Difference, batches: Sequence[Batch], device: str = "cpu") -> None:
        tuned = difference.tuned
        if tuned.bytes > LARGEST:
            raise InputError(
                f"{tuned.folder}: a divisor is sought with the model whole in memory, up to {LARGEST / 1e9:.0f} GB; "
                "take `by: dare`"
            )
        self.difference, self.batches, self.device = difference, batches, device
        self.model = load_model(tuned, device).requires_grad_(False)
        self.places = _places(difference, self.model)
        self.task = task_of(self.model)
        self.measure = f"top-{TOP} logits, mean squared" if self.task.logits else "last hidden state, mean absolute"
        self._real = [self._output(batch) for batch in batches]

    def put_base(self) -> None:
        """Every pruned tensor becomes the base's."""
        for name, place in self.places.items():
            place.copy_(self.difference.before(name).to(place.device))

    def entries(self, mask: Mask) -> list[Entry]:
        """What stays of every Δ under `mask(name, Δ)`."""
        found = []
        for name, place in self.places.items():
            delta = self.difference.delta(name)
            positions = mask(name, delta).reshape(-1).nonzero()[:, 0]
            before = self.difference.before(name).take(positions)
            one = (positions, before, delta.take(positions))
            found.append(Entry(place, *(tensor.to(place.device) for tensor in one)))
        return found

    def distance(self, entries: Sequence[Entry], q: float) -> float:
        """How far the outputs with base + `entries` / q are from the real ones; the base is left in place."""
        for entry in entries:
            entry.place.put_(entry.positions, entry.before + entry.delta / q)
        try:
            return self.distance_now()
        finally:
            for entry in entries:
                entry.place.put_(entry.positions, entry.before)

    def distance_now(self) -> float:
        """The same with what is in the model now."""
        total = count = 0.0
        for batch, real in zip(self.batches, self._real, strict=True):
            found = self._output(batch)
            if self.task.logits:
                top = real.topk(min(TOP, real.shape[-1]), -1)
                apart = (found.gather(-1, top.indices) - top.values).square()
            else:
                apart = (found - real).abs()
            total, count = total + float(apart.sum(dtype=torch.float64)), count + apart.numel()
        return total / count

    def input_means(self) -> dict[str, Tensor]:
        """Stored name → mean input of a linear layer over all tokens, float32 `[in]`; needs the fine-tuned weights."""
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        handles = []
        owners = {id(tensor): name for name, tensor in self.places.items()}
        for module in self.model.modules():
            name = owners.get(id(module.weight)) if isinstance(module, nn.Linear | Conv1D) else None
            if name is not None:
                handles.append(module.register_forward_hook(_adding(sums, counts, name)))
        try:
            for batch in self.batches:
                self._output(batch)
        finally:
            for handle in handles:
                handle.remove()
        return {name: (value / counts[name]).cpu() for name, value in sums.items()}

    @torch.no_grad()
    def _output(self, batch: Batch) -> Tensor:
        moved = {name: value.to(self.device) for name, value in given(batch).items()}
        return self.task.result(asked(self.model, self.task.asks)(**moved)).float()


def _adding(sums: dict[str, Tensor], counts: dict[str, int], name: str) -> Callable[..., None]:
    def hook(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        flat = arguments[0].detach().reshape(-1, arguments[0].shape[-1]).float()
        sums[name] = sums.get(name, 0) + flat.sum(0)
        counts[name] = counts.get(name, 0) + len(flat)

    return hook


def _places(difference: Difference, model: nn.Module) -> dict[str, Tensor]:
    """Stored name of every pruned tensor → its place in the model, a view where several are put together.

    Raises InputError for one that has none.
    """
    tuned = difference.tuned
    weights = Weights(tuned, empty_model(load_config(tuned), model_class(load_config(tuned), tuned)))
    state = model.state_dict(keep_vars=True)
    found: dict[str, Tensor] = {}
    for name in weights.names(""):
        pieces = weights.pieces(name)
        found |= {piece.disk: piece.of(state[name].data) for piece in pieces}
        if not pieces:
            found.update((disk, state[name]) for disk in weights.disk_names(name))
    if lost := [name for name in difference.pruned if name not in found]:
        raise InputError(f"{tuned.folder}: {type(model).__name__} has no place for {lost[0]}; add it to `skip`")
    return {name: found[name] for name in difference.pruned}
