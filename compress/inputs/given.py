"""Inputs that come with a module in memory: its example, and the batches that it is calibrated on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, keystr, tree_flatten_with_path, tree_unflatten

from compress.data.cut import cut
from compress.errors import InputError
from compress.graph.example import Example
from compress.inputs.arguments import Arguments
from compress.inputs.batch import LABELS, Batch, leading, rows
from compress.inputs.kind import Inputs
from compress.recipe.part import Part

if TYPE_CHECKING:
    from compress.checkpoint.open import Checkpoint
    from compress.recipe.schema import Calibrate


Loss = Callable[[Any, Any], Tensor]
"""`(output, target)` → the mean over the samples, `[]`."""


class Given(Inputs):
    """The `arguments` of a forward, of any form, `data` to calibrate on and the `loss` that gradients are taken of.

    `data` may be a function, called when a recipe asks for data. A batch of it is what the arguments' example is, or a
    pair of such and the target, which the loss is told.
    It fits no model of itself: a module is said to read it by `declare`. Raises InputError for batches of another form.
    """

    noun, data = "samples", Part("given")

    def __init__(
        self, arguments: Arguments, data: Iterable[Any] | Callable[[], Iterable[Any]] = (), loss: Loss | None = None
    ) -> None:
        self.arguments, self.loss = arguments, loss
        self._target: TreeSpec | None = None
        self._later = data if callable(data) else None
        self._now = [] if callable(data) else self._read(data)

    @cached_property
    def calibration(self) -> list[Batch]:
        """What was given, made only now where it was given as a function."""
        return self._now if self._later is None else self._read(self._later())

    @property
    def tower(self) -> Any:
        """None: there is no config."""
        return None

    def target(self, batch: Batch) -> Any:
        """What the loss is told of a batch. Raises InputError where it came without."""
        names = [name for name in batch if name.startswith(LABELS)]
        if self._target is None or not names:
            raise InputError("data: gradients need targets; give batches that are pairs, (inputs, target)")
        return tree_unflatten([batch[name] for name in names], self._target)

    def _read(self, data: Iterable[Any]) -> list[Batch]:
        return [self._batch(number, batch) for number, batch in enumerate(data)]

    def _batch(self, number: int, batch: Any) -> Batch:
        if self.arguments.fits(batch):
            return self.arguments.batch(batch)
        if isinstance(batch, tuple | list) and len(batch) == 2 and self.arguments.fits(batch[0]):
            leaves, self._target = tree_flatten_with_path(batch[1])
            if bad := [leaf for _, leaf in leaves if not isinstance(leaf, Tensor)]:
                raise InputError(f"data: batch {number}: its target holds a {type(bad[0]).__name__}; give tensors")
            return {**self.arguments.batch(batch[0]), **{f"{LABELS}{keystr(path)}": leaf for path, leaf in leaves}}
        raise InputError(
            f"data: batch {number} has neither the form of example_inputs nor is it a pair of such and a target"
        )

    @classmethod
    def fits(cls, model: nn.Module, config: Any) -> bool:
        """No model that it was not declared for."""
        return False

    def example(self) -> Example:
        """The tensors of the example without data. All their dimensions are named: what a caller gives stays as it is,
        also where a residual stream is as wide."""
        tensors = {name: torch.empty_like(value, device="meta") for name, value in self.arguments.example.items()}
        axes = {f"{name} {dim}": (name, dim) for name, value in tensors.items() for dim in range(1, value.dim())}
        return Example(tensors, {"batch": (next(iter(tensors)), 0), **axes})

    def check(self, rows: int = 2, seed: int = 0) -> Batch:
        """The example itself, all of it."""
        return {name: value.cpu() for name, value in self.arguments.example.items()}

    def odd(self, device: torch.device | str = "meta") -> Batch:
        """The example's sizes: nothing is known of others."""
        return {name: torch.zeros_like(value, device=device) for name, value in self.arguments.example.items()}

    def batches(self, calibrate: Calibrate, checkpoint: Checkpoint, seed: int = 0) -> tuple[list[Batch], str]:
        """The first `calibrate.samples` of what was given, in batches as given. Raises InputError without any."""
        if not self.calibration:
            raise InputError(
                "data: this recipe runs the module on samples, and none were given; pass `data=`, batches such as "
                "example_inputs"
            )
        found = leading(self.calibration, calibrate.samples)
        key = " ".join(cut({k: v.detach().cpu() for k, v in batch.items()}, rows(batch))[1] for batch in found)
        return found, key

    def held_out(self, calibrated: Iterable[Part | str | None]) -> Part:
        """The same: there is no other."""
        return self.data

    def length(self, batch: Batch) -> int:
        """One: what a sample's positions are is not known."""
        return 1


_declared: WeakKeyDictionary[nn.Module, Given] = WeakKeyDictionary()


def declare(module: nn.Module, given: Given) -> None:
    """From now on `module` reads what `given` says, and is for its loss."""
    _declared[module] = given


def declared(module: nn.Module) -> Given | None:
    """What was declared of a module, None where nothing was."""
    return _declared.get(module)
