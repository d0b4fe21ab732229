"""What a module answers to its example: kept beside its weights, so that whoever builds it again can be told apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from compress.checkpoint.open import open_tensors
from compress.errors import ModelError
from compress.tasks.given import compared

FILE = "answers.safetensors"
ANSWER = "answer"

ROUNDING = 1000
"""How many times its dtype's precision a module may be off itself where sums are made in another order."""

PLAIN = (type(None), bool, int, float, str)


def answer(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Every number of the output in evaluation mode, in which the module is only meanwhile, `[numbers]`."""
    modes = {part: part.training for part in module.modules()}
    try:
        with torch.no_grad():
            return compared(module.eval()(*args, **kwargs)).cpu()
    finally:
        for part, mode in modes.items():
            part.training = mode


def allowed(dtype: torch.dtype) -> float:
    """How far two answers may be apart, as a share of the largest number, where weights are `dtype`."""
    return ROUNDING * max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)


def write_answer(folder: Path, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Write the tensors of the arguments, and what `module` answers, into `folder`.

    Returns the arguments as plain values, for `check_answer`; None, and nothing is written, where they hold more than
    tensors, lists, tuples, dicts, numbers and text.
    """
    tensors: dict[str, Tensor] = {}
    try:
        told = [_plain(args, tensors), _plain(kwargs, tensors)]
    except TypeError:
        return None
    device = next((tensor.device for tensor in module.state_dict().values()), torch.device("cpu"))
    here = {name: tensor.to(device) for name, tensor in tensors.items()}
    tensors[ANSWER] = answer(module, _whole(told[0], here.__getitem__), _whole(told[1], here.__getitem__))
    save_file({name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}, folder / FILE)
    return told


def check_answer(folder: Path, module: nn.Module, told: Any, dtype: torch.dtype) -> None:
    """Raises ModelError where `module` answers otherwise than the one whose arguments are `told`."""
    held = open_tensors(folder / FILE)
    wanted = held.read(ANSWER)
    try:
        found = answer(module, _whole(told[0], held.read), _whole(told[1], held.read))
    except Exception as error:  # whatever the caller's code raises
        raise ModelError(f"{folder}: what `build` made does not run with the weights: {error}") from error
    if found.shape != wanted.shape or not (off := _apart(found, wanted)) <= allowed(dtype):
        much = f"{off:.1e} of its largest value" if found.shape == wanted.shape else "numbers of another count"
        raise ModelError(
            f"{folder}: what `build` made has the weights' shapes and computes something else, {much} away from what "
            f"was saved; build the module that was pruned, of the same version"
        )


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max().clamp_min(1e-12))


def _plain(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = f"input {len(tensors)}"
        tensors[name] = value
        return {"tensor": name}
    if type(value) in PLAIN:
        return {"value": value}
    if type(value) in (list, tuple):
        return {type(value).__name__: [_plain(one, tensors) for one in value]}
    if type(value) is dict and all(isinstance(key, str) for key in value):
        return {"dict": {key: _plain(one, tensors) for key, one in value.items()}}
    raise TypeError(f"a {type(value).__name__} is not stored")


def _whole(plain: Any, read: Callable[[str], Tensor]) -> Any:
    ((kind, value),) = plain.items()
    if kind == "tensor":
        return read(value)
    if kind == "dict":
        return {key: _whole(one, read) for key, one in value.items()}
    if kind in ("list", "tuple"):
        parts = [_whole(one, read) for one in value]
        return parts if kind == "list" else tuple(parts)
    return value
