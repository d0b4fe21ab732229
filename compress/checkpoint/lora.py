"""What a LoRA adapter changes of one stored tensor of its base model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from compress.checkpoint.header import TensorSpec
from compress.checkpoint.seen import fill
from compress.errors import InputError


class Change(Protocol):
    """Of one tensor."""

    def merged(self, weight: Tensor) -> Tensor:
        """The base's tensor with the adapter in it, of the same shape and dtype."""
        ...


@dataclass(frozen=True)
class LowRank:
    """`W + scaling · B A`, with a `magnitude` each output is scaled to that norm afterwards (DoRA, arXiv 2402.09353).

    `a` `[r, in]`, `b` `[out, r]`. `transposed`: the stored matrix is `[in, out]`, as embeddings and GPT-2's are.
    """

    a: TensorSpec
    b: TensorSpec
    scaling: float
    magnitude: TensorSpec | None = None
    transposed: bool = False

    def merged(self, weight: Tensor) -> Tensor:
        wide = torch.promote_types(weight.dtype, torch.float32)
        product = self.scaling * (stored(self.b).to(wide) @ stored(self.a).to(wide))
        found = weight.to(wide) + (product.T if self.transposed else product)
        if self.magnitude is not None:
            inputs, outputs = (0, 1) if self.transposed else (1, 0)
            norm = found.norm(dim=inputs, keepdim=True)
            shape = [1, 1]
            shape[outputs] = -1
            found = found * (stored(self.magnitude).to(wide).reshape(shape) / norm)
        return found.to(weight.dtype)


@dataclass(frozen=True)
class Replaced:
    """The adapter holds the whole tensor: a bias, or one of a module that it saves."""

    whole: TensorSpec

    def merged(self, weight: Tensor) -> Tensor:
        return stored(self.whole).to(weight.dtype)


def stored(spec: TensorSpec) -> Tensor:
    """The tensor as it lies in its safetensors file."""
    flat = torch.empty(spec.bytes, dtype=torch.uint8)
    fill(flat, spec.file, spec.start)
    return flat.view(spec.dtype).reshape(spec.shape)


def scaling(alpha: float, rank: int, *, by_root: bool) -> float:
    """The factor of `B A`: alpha / r, with rank-stabilised LoRA (arXiv 2312.03732) alpha / √r."""
    return alpha / (math.sqrt(rank) if by_root else rank)


def low_rank(
    module: str,
    parts: dict[str, TensorSpec],
    weight: TensorSpec,
    *,
    alpha: float,
    by_root: bool,
    fan_in_fan_out: bool,
) -> LowRank:
    """The change of `weight` by the adapter's `parts` of a module (`lora_A`, `lora_B`, `lora_embedding_A`, …).

    A matrix that fits both ways round is square; then `fan_in_fan_out` says which one it is. Raises InputError, naming
    the module, the file and the shapes, when parts are missing or do not fit.
    """
    embedding = "lora_embedding_A" in parts or "lora_embedding_B" in parts
    a, b = (parts.get(f"lora_embedding_{x}" if embedding else f"lora_{x}") for x in "AB")
    magnitude = parts.get("lora_magnitude_vector")
    file = next(iter(parts.values())).file
    if a is None or b is None:
        raise InputError(f"{file}: {module} has {', '.join(sorted(parts))} only; fetch or save the adapter again")
    if embedding and magnitude is not None:
        raise InputError(f"{file}: {module}: DoRA of an embedding is not merged here; merge it with peft")
    said = f"{file}: {module}: A is {list(a.shape)}, B {list(b.shape)}, {weight.name} of the base {list(weight.shape)}"
    if len(a.shape) != 2 or len(b.shape) != 2 or len(weight.shape) != 2:
        raise InputError(f"{said}; only matrices are merged here, merge it with peft")
    outputs, inputs = b.shape[0], a.shape[1]
    straight, turned = weight.shape == (outputs, inputs), weight.shape == (inputs, outputs)
    if a.shape[0] != b.shape[1] or not (straight or turned):
        raise InputError(f"{said}, which do not fit; the adapter belongs to another base model")
    if magnitude is not None and math.prod(magnitude.shape) != outputs:
        raise InputError(f"{file}: {module}: the magnitude is {list(magnitude.shape)}, the outputs are {outputs}")
    transposed = turned and (not straight or fan_in_fan_out or embedding)
    return LowRank(a, b, scaling(alpha, a.shape[0], by_root=by_root), magnitude, transposed)
