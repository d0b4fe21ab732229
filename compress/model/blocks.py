"""Whether the number of blocks that a config asks for is the stored one."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator

from torch import nn

NUMBERED = re.compile(r"(?<![^.])(\d+)\.")

DERIVED = re.compile(r"(\.inv_freq|\.position_ids|\.masked_bias|\.attn\.bias|\.attention\.bias)$")
"""Buffers of older versions, which a model computes itself now."""


def wrong_count(model: nn.Module, stored: Collection[str], missing: Collection[str], strays: Collection[str]) -> str:
    """What to say when whole blocks that the model has are `missing`, or `strays` are whole blocks that it has not.

    "" where neither is so: `strays` that are like no other block may be anything (heads that predict further tokens).
    """
    for stack, have in _stacks(model):
        length, first = len(list(have)), _first_missing(stack, missing)
        if first and _all_missing(model, stack, range(first, length), missing):
            return _say(model, length, first, f"no {stack}.{first} is stored")
        blocks = _blocks(stored, stack, getattr(model, "base_model_prefix", ""))
        more = length
        while more in blocks and blocks[more] <= set(strays) and _parts(blocks, more) == _parts(blocks, 0):
            more += 1
        if more > length:
            return _say(model, length, more, f"{stack}.{length} is stored too")
    return ""


def left_over(model: nn.Module, strays: Collection[str]) -> list[str]:
    """Those stored tensors without a place that its class does not expect to be there."""
    ignored = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    return [name for name in strays if not DERIVED.search(name) and not any(re.search(i, name) for i in ignored)]


def _first_missing(stack: str, missing: Collection[str]) -> int:
    """The least number of a block of which something is missing; 0 where none is."""
    found = (NUMBERED.match(name, len(stack) + 1) for name in missing if name.startswith(stack + "."))
    return min((int(number[1]) for number in found if number), default=0)


def _all_missing(model: nn.Module, stack: str, numbers: Iterable[int], missing: Collection[str]) -> bool:
    """Whether nothing of these blocks is there."""
    names = {
        f"{stack}.{number}.{name}"
        for number in numbers
        for name in model.get_submodule(f"{stack}.{number}").state_dict()
    }
    return names <= set(missing)


def _stacks(model: nn.Module) -> Iterator[tuple[str, nn.ModuleList]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList):
            yield name, module


def _blocks(stored: Collection[str], stack: str, prefix: str) -> dict[int, set[str]]:
    """Number → stored names of that block, under the name of the stack with or without the base class's prefix."""
    found: dict[int, set[str]] = defaultdict(set)
    spelled = {stack, f"{prefix}.{stack}", stack.removeprefix(f"{prefix}.")}
    for name in stored:
        for own in spelled:
            if name.startswith(own + ".") and (number := NUMBERED.match(name, len(own) + 1)):
                found[int(number[1])].add(name)
    return found


def _parts(blocks: dict[int, set[str]], number: int) -> set[str]:
    return {re.sub(rf"(?<![^.]){number}\.", "#.", name, count=1) for name in blocks[number]}


def _say(model: nn.Module, asked: int, right: int, found: str) -> str:
    from compress.model.fields import layer_counts

    config = getattr(model, "config", None)
    fields = [path for path, count in layer_counts(config.to_dict()) if count == asked] if config is not None else []
    field = fields[0] if fields else "the number of layers"
    return f"{field} is {asked}, but {found}; set {field} to {right}, or fetch the missing weights"
