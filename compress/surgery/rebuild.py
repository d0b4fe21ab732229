"""An edited module in memory: the cut tensors, and a skeleton with the edit's changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from compress.checkpoint.held import HeldCheckpoint, hold
from compress.errors import InputError, VerifyError
from compress.model.answers import allowed, answer
from compress.model.changes import Changes, fill
from compress.model.model import Model
from compress.model.skeleton import Skeleton, main_dtype
from compress.model.weights import Weights, runnable_model
from compress.surgery.edit import Edit, Written
from compress.surgery.verify.noise import apart


@dataclass
class InMemory:
    """A place that holds one edited module: its `tensors` by name, and the `changes` of the module that it is of."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    changes: Changes = field(default_factory=Changes)

    def write(self, source: Model, edit: Edit) -> None:
        """Take the tensors. Raises ValueError where the edit does not produce just what it declares."""
        specs = {name: (dtype, tuple(shape)) for name, dtype, shape in edit.specs}

        def put(name: str, tensor: Tensor) -> None:
            if specs.get(name) != (tensor.dtype, tuple(tensor.shape)) or name in self.tensors:
                raise ValueError(
                    f"{name} is {tensor.dtype} {list(tensor.shape)}, not {specs.get(name)}, or there twice"
                )
            self.tensors[name] = tensor.detach().cpu()

        edit.produce(put)
        if lost := specs.keys() - self.tensors.keys():
            raise ValueError(f"{len(lost)} tensors were never produced, among them {min(lost)}")
        self.tensors = {name: self.tensors[name] for name in specs}
        try:
            self.changes = Changes.read(edit.config)
        except InputError:
            asked = ", ".join(edit.config)
            raise InputError(f"a module in memory has no config to write {asked} into; leave the step out") from None

    def opened(self, source: Model) -> Written:
        """The checkpoint of the edited module."""
        skeleton = cast(Skeleton, source.checkpoint.architecture)
        return Written(Path(skeleton.cls.__name__), hold(self.tensors, skeleton.changed(self.changes)))


def module_of(checkpoint: HeldCheckpoint, like: nn.Module) -> nn.Module:
    """The module with its weights, each on the device of its namesake in `like`, or of the first one there."""
    module = cast(Skeleton, checkpoint.architecture).copy()
    devices = {name: tensor.device for name, tensor in like.state_dict().items()}
    usual = next(iter(devices.values()), torch.device("cpu"))
    fill(module, {name: checkpoint.read(name).to(devices.get(name, usual)) for name in checkpoint.tensors})
    return module


def check_forward(checkpoint: HeldCheckpoint, module: nn.Module, which: str) -> None:
    """Raises VerifyError where `module`, as it is called by others, does not compute what is traced, calibrated and
    verified of it here, or not the same each time. `which` of them it is: `given` or `pruned`."""
    skeleton = cast(Skeleton, checkpoint.architecture)
    own = runnable_model(checkpoint)
    Weights(checkpoint, own).load("", torch.float32)
    batch, dtype = skeleton.given.check(), main_dtype(module) or torch.float32
    device = next((tensor.device for tensor in module.state_dict().values()), torch.device("cpu"))
    args, kwargs = skeleton.given.arguments.call({name: value.to(device) for name, value in batch.items()}, None)
    wanted, (found, again) = answer(own, (), batch), (answer(module, args, kwargs) for _ in range(2))
    if (off := apart(again, found)) > allowed(dtype):
        raise VerifyError(
            f"the {which} module gives another output each time, {off:.1e} apart; so nothing can be verified"
        )
    if found.shape != wanted.shape or not (off := apart(found, wanted)) <= allowed(dtype):
        raise VerifyError(
            f"the {which} module, called with example_inputs, gives an output that is {off:.1e} of its largest value "
            f"away from the one that was looked at; its forward may depend on more than its inputs and weights"
        )
