"""What fine-tuning changed, tensor by tensor; two tensors in memory at a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch

import torch
from torch import Tensor

from compress.checkpoint.open import Checkpoint
from compress.errors import InputError
from compress.model.build import load_config, model_class


@dataclass(frozen=True)
class Difference:
    """`base_names`: stored name in `tuned` → in `base`, of tensors with equal shapes; `pruned` are those to prune."""

    tuned: Checkpoint
    base: Checkpoint
    base_names: Mapping[str, str]
    pruned: tuple[str, ...]

    def delta(self, name: str) -> Tensor:
        """Δ = fine-tuned − base of a stored tensor, float32. Raises InputError when it holds NaN or infinity."""
        delta = self.tuned.read(name).float() - self.before(name)
        if not torch.isfinite(delta).all():
            raise InputError(
                f"{self.tuned.folder}: {name} less its base holds NaN or infinity; fetch or save both again"
            )
        return delta

    def before(self, name: str) -> Tensor:
        """The base's tensor, float32."""
        return self.base.read(self.base_names[name]).float()

    def unchanged(self, name: str) -> bool:
        """Whether fine-tuning left the tensor as it was, dtype included."""
        other = self.base_names.get(name)
        if other is None or self.base.tensors[other].dtype != self.tuned.tensors[name].dtype:
            return False
        one, before = (
            tensor.reshape(-1).view(torch.uint8) for tensor in (self.tuned.read(name), self.base.read(other))
        )
        return torch.equal(one, before)


def find_difference(tuned: Checkpoint, base: Checkpoint, skip: Collection[str]) -> Difference:
    """Match the tensors of a fine-tuned model with its base's, with or without the prefix of the base class.

    Matrices (and stacks of them) in a floating dtype of two bytes or more that match no glob of `skip` are pruned.
    Raises InputError when the two are the same model, or have no matrix to prune in common.
    """
    if tuned.digest == base.digest:
        raise InputError(f"{tuned.folder}: is its own base; give the fine-tuned model, and as `base` what it came from")
    prefix = getattr(model_class(load_config(tuned), tuned), "base_model_prefix", "")
    names = {}
    for name, spec in tuned.tensors.items():
        for other in (name, name.removeprefix(f"{prefix}."), f"{prefix}.{name}"):
            if other in base.tensors and base.tensors[other].shape == spec.shape:
                names[name] = other
                break
    pruned = tuple(
        name
        for name in names
        if len((spec := tuned.tensors[name]).shape) > 1
        and spec.dtype.is_floating_point
        and spec.dtype.itemsize > 1
        and not any(fnmatch(name, pattern) for pattern in skip)
    )
    if not pruned:
        raise InputError(
            f"{base.folder}: not the base of {tuned.folder}: no matrix to prune has the same name and shape in both"
        )
    return Difference(tuned, base, names, pruned)
