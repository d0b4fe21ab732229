"""Which integers of which modules must change with the tensors that were cut, found by trying."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, combinations
from typing import Any

from torch import nn
from transformers import PretrainedConfig
from transformers.pytorch_utils import Conv1D

from compress.errors import ModelError
from compress.model.modeling_compress import ConfigView, patch
from compress.output_format.probe import accepts, attention_shapes, runs, shapes_of

Shapes = Mapping[str, tuple[int, ...]]
Attributes = dict[str, dict[str, int]]
MAX_CHANGED = 5  # attributes of one kind of block that may have to change at once
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)
_AGREEING = (nn.Linear, nn.Embedding, Conv1D, nn.modules.conv._ConvNd, *_NORMS)  # `reshape` sets their numbers itself


@dataclass(frozen=True)
class Rule:
    """`attribute` of the modules that match `module` shrinks in proportion to dimension `dim` of the tensor below."""

    module: str  # with `*` for the index of a block
    attribute: str
    tensor: str  # relative to the module
    dim: int


def find_rules(model: nn.Module, reshaped: nn.Module, width: int | None) -> tuple[Rule, ...]:
    """The smallest set of rules under which `reshaped` runs.

    Args:
        model: the original on meta, few layers.
        reshaped: the same with the wanted shapes; its attributes are tried out and put back.
        width: new width of a head where that changes, else None.

    Raises:
        ModelError: no set makes the forward valid.
    """
    widths = [width if width else old for _, old in attention_shapes(model)]
    before, after = shapes_of(model), shapes_of(reshaped)
    found = dict(_candidates(model, before, after))
    rules = list(found)
    for chosen in chain(_alike(found), _few(rules)):
        try:
            values = expand(chosen, model, before, after)
        except ModelError:  # what a rule says of one module another one cannot follow
            continue
        if _works(reshaped, values, widths):
            return chosen
    tried = ", ".join(sorted({f"{r.module}.{r.attribute}" for r in rules})) or "none"
    raise ModelError(
        f"{type(model).__name__} does not run with these shapes, whatever numbers its modules are given "
        f"(tried: {tried}). Prune with `widths: uniform`, or leave this kind out."
    )


def _alike(found: Mapping[Rule, Fraction]) -> Iterator[tuple[Rule, ...]]:
    """Sets of rules that say the same of every kind of module: attentions of encoders and decoders alike."""
    groups: dict[tuple[str, Fraction], list[Rule]] = {}
    for rule, ratio in found.items():
        groups.setdefault((rule.attribute, ratio), []).append(rule)
    for count in range(min(MAX_CHANGED, len(groups)) + 1):
        for names in combinations(groups, count):
            if len({attribute for attribute, _ in names}) == count:
                yield tuple(rule for name in names for rule in groups[name])


def _few(rules: list[Rule]) -> Iterator[tuple[Rule, ...]]:
    """Sets of few rules, of which no two say how one attribute is to change."""
    for count in range(1, min(MAX_CHANGED, len(rules)) + 1):
        for chosen in combinations(rules, count):
            if len({(rule.module, rule.attribute) for rule in chosen}) == count:
                yield chosen


def expand(rules: tuple[Rule, ...], model: nn.Module, before: Shapes, after: Shapes) -> Attributes:
    """Values for every module that the rules match and whose tensor changed."""
    found: Attributes = {}
    modules = dict(model.named_modules())
    for rule in rules:
        for name, module in modules.items():
            tensor = f"{name}.{rule.tensor}".lstrip(".")
            if _pattern(name) != rule.module or tensor not in after or before.get(tensor) == after[tensor]:
                continue
            if not _has(module, rule.attribute):
                continue  # hybrid models have attentions of several classes at the same place of their layers
            value = _scaled(_get(module, rule.attribute), before[tensor][rule.dim], after[tensor][rule.dim])
            if value is None:
                raise ModelError(f"{name}.{rule.attribute} cannot follow {tensor}: {before[tensor]} → {after[tensor]}")
            if value != _get(module, rule.attribute):
                found.setdefault(name, {})[rule.attribute] = value
    return found


def _candidates(model: nn.Module, before: Shapes, after: Shapes) -> Iterator[tuple[Rule, Fraction]]:
    """Integers that the forward reads, in modules above a cut tensor, that can shrink in its proportion."""
    seen: set[tuple] = set()
    modules = dict(model.named_modules())
    for name, attribute in _reads(model):
        value = _get(modules[name], attribute)
        for tensor, old in before.items():
            if (name and not tensor.startswith(name + ".")) or tensor not in after:
                continue
            for dim, (one, other) in enumerate(zip(old, after[tensor], strict=True)):
                scaled = None if one == other else _scaled(value, one, other)
                key = (_pattern(name), attribute, scaled)
                if scaled is not None and key not in seen:
                    seen.add(key)
                    yield Rule(_pattern(name), attribute, tensor[len(name) :].lstrip("."), dim), Fraction(other, one)


def _works(model: nn.Module, attributes: Attributes, widths: list[int]) -> bool:
    originals = {name: dict(vars(model.get_submodule(name))) for name in attributes}
    try:
        for name, values in attributes.items():
            patch(model.get_submodule(name), values)
        return accepts(model, widths)
    finally:
        for name, state in originals.items():
            vars(model.get_submodule(name)).update(state)


def _reads(model: nn.Module) -> list[tuple[str, str]]:
    """(module, attribute) of every integer above 1 that a forward reads, a module's `config.x` included."""
    found: dict[tuple[str, str], None] = {}
    originals = {}
    for name, module in model.named_modules():
        if isinstance(module, _AGREEING):
            continue
        originals[module] = (type(module), module.__dict__.get("config"))
        if isinstance(originals[module][1], PretrainedConfig):
            module.config = _watched_config(originals[module][1], name, found)  # pyright: ignore
        module.__class__ = _watched(type(module), name, found)
    try:
        runs(model)
    finally:
        for module, (cls, config) in originals.items():
            module.__class__ = cls
            if config is not None:
                module.config = config
    return list(found)


def _watched(cls: type, name: str, found: dict) -> type:
    def read(self: Any, attribute: str) -> Any:
        value = cls.__getattribute__(self, attribute)  # pyright: ignore[reportCallIssue]
        if type(value) is int and value > 1 and not attribute.startswith("_"):
            found[name, attribute] = None
        return value

    return type(cls.__name__, (cls,), {"__getattribute__": read, "__module__": cls.__module__})


def _watched_config(config: PretrainedConfig, name: str, found: dict) -> Any:
    class Watched(ConfigView):
        def __getattr__(self, attribute: str) -> Any:
            value = super().__getattr__(attribute)
            if type(value) is int and value > 1 and not attribute.startswith("_"):
                found[name, f"config.{attribute}"] = None
            return value

    return Watched(config, {})


def _get(module: nn.Module, attribute: str) -> int:
    for part in attribute.split("."):
        module = getattr(module, part)
    return module  # pyright: ignore[reportReturnType]


def _has(module: nn.Module, attribute: str) -> bool:
    try:
        _get(module, attribute)
    except AttributeError:
        return False
    return True


def _scaled(value: int, old: int, new: int) -> int | None:
    scaled, rest = divmod(value * new, old)
    return None if rest or scaled < 1 else scaled


def _pattern(name: str) -> str:
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name)
