"""Experiments on the meta device: build a model from edited numbers and see which sizes come out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from transformers import PretrainedConfig

from compress.errors import ModelError
from compress.graph.record import WrittenNumbers
from compress.graph.values import Unread
from compress.inputs.batch import Batch, given, rows
from compress.inputs.choose import inputs_of
from compress.inputs.kind import Inputs
from compress.model.build import empty_model
from compress.output_format.config import Field, edited

Key = tuple[str, int]  # (tensor, dimension), or (`@attention.i`, 1) for the width of the i-th attention's heads


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


_without: set[type] = set()  # classes whose forward multiplies no two activations: networks of convolutions
_measured: dict[tuple[type, str], dict[Key, int]] = {}  # recipes on one model ask for the same sizes over and over


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shape of everything in the state dict, ties under every name."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def same_outside(short: nn.Module, model: nn.Module) -> bool:
    """Whether a model with fewer blocks is the same outside of them. With fewer stages its end is narrower."""
    prefixes, wide = tuple(f"{stack.name}." for stack in stacks(model)), shapes_of(model)
    return all(wide.get(name) == shape for name, shape in shapes_of(short).items() if not name.startswith(prefixes))


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


@dataclass(frozen=True)
class Read:
    """Small inputs of a model: one that is cut may not run as it is, and must not be given others for that. `ways` are
    the answers to unknown values with which the model runs, so that each branch of it does that can."""

    inputs: Inputs
    batch: Batch
    ways: tuple[int, ...] = (0,)


def reads(model: nn.Module) -> Read:
    """What to give a model, and those that are made from it."""
    inputs = inputs_of(model)
    return Read(inputs, inputs.odd(next(model.parameters()).device))


def both_ways(model: nn.Module, read: Read) -> Read:
    """The same inputs, with which a model that branches on unknown values is to run the other way too, if it can."""
    mode = Unread()
    try:
        _run(model, read.batch, mode)
    except Exception:  # any refusal of foreign modeling code is an answer, not a fault
        return read
    return replace(read, ways=(0, 1)) if mode.branches and runs(model, replace(read, ways=(1,))) else read


def attention_shapes(model: nn.Module, read: Read | None = None) -> list[tuple[int, int]]:
    """(heads, width of a head) of every attention in order of execution; empty when the forward fails."""
    if type(model) in _without:
        return []
    try:
        return _attentions(model, read or reads(model))
    except Exception:  # foreign modeling code may refuse: shapes of parameters must do
        return []


def accepts(model: nn.Module, widths: list[int], read: Read) -> bool:
    """Does the forward accept the model's own shapes, its attentions seeing heads of these `widths` in turn? It ends
    at the first that sees others."""
    try:
        if type(model) in _without:
            return not widths and runs(model, read)
        same = [width for _, width in _attentions(model, read, widths)] == widths
        return same and all(runs(model, replace(read, ways=(way,))) for way in read.ways[1:])
    except Exception:  # any refusal of foreign modeling code is an answer, not a fault
        return False


def _attentions(model: nn.Module, read: Read, wanted: list[int] | None = None) -> list[tuple[int, int]]:
    recorder = _Attention(rows(read.batch), read.inputs.length(read.batch), wanted)
    with recorder.watch(model):
        _run(model, read.batch, recorder)
    if not recorder.multiplies:
        _without.add(type(model))
    return recorder.found


def runs(model: nn.Module, read: Read | None = None) -> bool:
    """Does the forward accept the model's own shapes?"""
    try:
        read = read or reads(model)
        for way in read.ways:
            _run(model, read.batch, Unread(way))
    except Exception:  # any refusal of foreign modeling code is an answer, not a fault
        return False
    return True


def _run(model: nn.Module, batch: Batch, mode: Unread) -> None:
    """One forward inside `mode`, on the device of the model."""
    device, taken = next(model.parameters()).device, given(batch)
    taken = mode.values.lend(taken) if device.type == "meta" else {name: x.to(device) for name, x in taken.items()}
    with torch.no_grad(), device, WrittenNumbers(mode.values), mode:
        model(**taken)


class _Attention(Unread):
    """Notes products whose result is `[batch × heads, sequence, sequence]`, of one sequence or of two: queries times
    keys.

    A sequence is as long as the inputs, or as what a repeated block is given (an image's patches and a class token).
    Raises ModelError at heads of another width than is `wanted`, if that is said.
    """

    def __init__(self, rows: int, length: int, wanted: list[int] | None = None) -> None:
        super().__init__()
        self._wanted = wanted
        self.found: list[tuple[int, int]] = []
        self.multiplies = False
        self._rows, self._lengths = rows, {length}

    @contextmanager
    def watch(self, model: nn.Module) -> Iterator[None]:
        """Note how long the sequences are that blocks are given."""
        blocks = [model.get_submodule(f"{stack.name}.0") for stack in stacks(model)]
        handles = [block.register_forward_pre_hook(self._given, with_kwargs=True) for block in blocks]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _given(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        states = (x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x.dim() == 3)
        if (hidden := next(states, None)) is not None:
            self._lengths.add(hidden.shape[1])

    def saw(self, func: Any, args: Any, kwargs: Any, operands: list[Tensor], result: Any) -> None:
        """Look at an operator."""
        if func in (torch.ops.aten.bmm.default, torch.ops.aten.baddbmm.default):
            self.multiplies = True
            if 0 in (args[-1].stride(0), args[-2].stride(0)):
                return  # one matrix for all rows: a projection
            (_, length, across), width = result.shape, args[-2].shape[-1]
            own = length == across != width and length in self._lengths
            crossed = length != across and {length, across} <= self._lengths and width not in self._lengths
            if own or crossed:
                self.found.append((result.shape[0] // self._rows, width))
                place = len(self.found) - 1
                if self._wanted is not None and self._wanted[place : place + 1] != [width]:
                    raise ModelError(f"the heads of attention {place} would be {width} wide")


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
