"""What a model takes, asked of itself: its forward's signature, and forwards on the meta device that fail or run."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.graph.numbers import set_numbers
from compress.graph.record import WrittenNumbers
from compress.graph.values import Unread
from compress.inputs.batch import Batch, given

MOST_ENTRIES = 4
"""Widths that are tried where no config says one."""


def takes(model: nn.Module, *names: str) -> bool:
    """Whether the forward has all these arguments."""
    return set(names) <= set(inspect.signature(model.forward).parameters)


def needs(model: nn.Module) -> list[str]:
    """The arguments that the forward must be given."""
    found = inspect.signature(model.forward).parameters.values()
    free = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return [one.name for one in found if one.default is inspect.Parameter.empty and one.kind not in free]


def main_input(model: nn.Module) -> str | None:
    """The argument that a model reads first, None where nothing tells. What transformers' class says goes before the
    signature only where the forward takes it, or where a wrapper takes whatever is given: towers inherit the name from
    models of text."""
    said, known = getattr(model, "main_input_name", None), inspect.signature(model.forward).parameters
    if said is None or said in known or any(one.kind is one.VAR_POSITIONAL for one in known.values()):
        return said
    first = next(iter(known), said)
    return next(iter(needs(model)), first)


def on_meta(model: nn.Module) -> nn.Module:
    """The model where it is on the meta device but for single numbers, else another one of its config that is."""
    if all(tensor.is_meta or not tensor.dim() for tensor in [*model.parameters(), *model.buffers()]):
        return model
    build: Any = type(model)
    with torch.device("meta"):
        found = build._from_config(copy.deepcopy(model.config), attn_implementation="eager").eval()
    set_numbers(found)
    return found


def answer(model: nn.Module, batch: Batch, method: Callable[..., Any] | None = None) -> Any:
    """What the forward of a model on meta (or a method of it) makes of a real batch.

    Raises ModelError with what the model's code says against it.
    """
    mode = Unread()
    taken = mode.values.lend(given(batch))
    try:
        with torch.no_grad(), torch.device("meta"), WrittenNumbers(mode.values), mode:
            return (method or model)(**taken)
    except Exception as error:  # foreign modeling code may raise anything
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ModelError(f"given {' and '.join(taken)}: {reason}") from error


class _Begun(Exception):
    """A module has begun to run."""


def refuses(model: nn.Module, batch: Batch) -> bool:
    """Whether the forward says something against a batch before any module in it runs, which takes no time."""

    def begun(*_: Any) -> None:
        raise _Begun

    hooks = [child.register_forward_pre_hook(begun) for child in model.children()]
    try:
        with torch.no_grad():
            model(**batch)
    except _Begun:
        return False
    except Exception:  # foreign modeling code may raise anything
        return True
    finally:
        for hook in hooks:
            hook.remove()
    return False


def options(config: Any, *names: str) -> Any:
    """The first of these settings that a config has, or else one of the configs in it; None where none has."""
    for name in names:
        if (found := getattr(config, name, None)) is not None:
            return found
    parts: Mapping[str, Any] = vars(config) if hasattr(config, "__dict__") else {}
    for part in parts.values():
        if hasattr(part, "to_dict") and (found := options(part, *names)) is not None:
            return found
    return None


def entries(model: nn.Module) -> list[int]:
    """How wide the first few projections of a model are on the side that they read, those of the outermost modules
    first: likely widths of its input."""
    found: dict[int, None] = {}
    level = [model]
    while level and len(found) < MOST_ENTRIES:
        for layer in level:
            if isinstance(layer, nn.Linear | nn.Conv1d):
                found[layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels] = None
        level = [child for layer in level for child in layer.children()]
    return list(found)[:MOST_ENTRIES]


def width(features: Any) -> tuple[int, int]:
    """How many feature vectors there are in a tensor or a list of tensors `[…, width]`, and how wide they are."""
    tensors = [features] if isinstance(features, Tensor) else list(features)
    return sum(one.numel() for one in tensors) // tensors[0].shape[-1], tensors[0].shape[-1]
