"""Experiments on the meta device: build a model from edited numbers and see which sizes come out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PretrainedConfig

from compress.model.build import empty_model
from compress.output_format.config import Field, edited

Key = tuple[str, int]  # (tensor, dimension), or (`@attention.i`, 1) for the width of the i-th attention's heads
BATCH, SEQUENCE = 3, 11


@dataclass(frozen=True)
class Stack:
    """Repeated blocks: the name of their ModuleList and how many there are."""

    name: str
    size: int


def stacks(model: nn.Module) -> list[Stack]:
    """ModuleLists of at least two equal modules that are in no other such list (experts are in blocks)."""
    found: list[Stack] = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or len({type(m) for m in module}) != 1:
            continue
        if not any(name.startswith(s.name + ".") for s in found):
            found.append(Stack(name, len(module)))
    return found


_measured: dict[tuple[type, str], dict[Key, int]] = {}  # recipes on one model ask for the same sizes over and over


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shape of everything in the state dict, ties under every name."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def aliases(model: nn.Module) -> list[set[str]]:
    """Sets of names that are one tensor: shared parameters and the ties that loading makes."""
    groups: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), set()).add(name)
    result = [names for names in groups.values() if len(names) > 1]
    tied: Any = getattr(model, "all_tied_weights_keys", None) or {}
    return result + [{one, other} for one, other in tied.items()]


def sizes(model: nn.Module) -> dict[Key, int]:
    """Every dimension of every tensor, and what the attentions see as the width of their heads."""
    result = {(name, dim): n for name, shape in shapes_of(model).items() for dim, n in enumerate(shape)}
    for i, (_, width) in enumerate(attention_shapes(model)):
        result[f"@attention.{i}", 1] = width
    return result


def measure(config: PretrainedConfig, cls: type, edits: Mapping[Field, Any]) -> dict[Key, int] | None:
    """Sizes with these edits, None where the architecture refuses them."""
    try:
        asked = edited(config, edits)
        key = (cls, asked.to_json_string(use_diff=False))
        if key not in _measured:
            _measured[key] = sizes(empty_model(asked, cls))
        return _measured[key]
    except Exception:  # any refusal of foreign modeling code is an answer, not a fault
        return None


def attention_shapes(model: nn.Module) -> list[tuple[int, int]]:
    """(heads, width of a head) of every attention in order of execution; empty when the model takes no token ids."""
    recorder = _Attention()
    try:
        run(model, recorder)
    except Exception:  # not a text model: shapes of parameters must do
        return []
    return recorder.found


def run(model: nn.Module, mode: Any) -> None:
    """One forward of `[3, 11]` token ids on the model's own device, inside `mode`."""
    device = next(model.parameters()).device
    ids = torch.ones(BATCH, SEQUENCE, dtype=torch.long, device=device)
    more = {"decoder_input_ids": ids} if getattr(model.config, "is_encoder_decoder", False) else {}
    with torch.no_grad(), Branches(), mode:
        model(input_ids=ids, **more)


def runs(model: nn.Module) -> bool:
    """Does the forward accept the model's own shapes?"""
    try:
        run(model, nullcontext())
    except Exception:  # any refusal of foreign modeling code is an answer, not a fault
        return False
    return True


class Branches(TorchDispatchMode):
    """Answers 0 where Python branches on a value that the meta device does not have, as GPT-2 does on padding."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return torch.zeros((), dtype=args[0].dtype).item()
        return func(*args, **(kwargs or {}))


class _Attention(TorchDispatchMode):
    """Notes products whose result is `[batch × heads, sequence, sequence]`: queries times keys."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.bmm.default, torch.ops.aten.baddbmm.default):
            left = args[-2]
            if tuple(out.shape[1:]) == (SEQUENCE, SEQUENCE) and left.shape[-1] != SEQUENCE:
                self.found.append((out.shape[0] // BATCH, left.shape[-1]))
        return out


def uneven(shapes: Mapping[str, tuple[int, ...]], original: Mapping[str, tuple[int, ...]]) -> str | None:
    """A tensor that was equal in all layers and no longer is, with its shapes; None when there is none."""
    before, after = _by_pattern(original), _by_pattern(shapes)
    for pattern, found in after.items():
        if len(found) > 1 and len(before.get(pattern, ())) == 1:
            return f"{pattern} is {' and '.join(str(list(s)) for s in sorted(found))}"
    return None


def _by_pattern(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, set[tuple[int, ...]]]:
    found: dict[str, set[tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        found.setdefault(re.sub(r"(?<=\.)\d+(?=\.)", "*", name), set()).add(shape)
    return found
