"""Which integers of which modules may change with the tensors that were cut, and to what."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import nn
from transformers import PretrainedConfig
from transformers.pytorch_utils import Conv1D

from compress.errors import ModelError
from compress.model.modeling_compress import ConfigView, patch
from compress.output_format.probe import Read, runs

Shapes = Mapping[str, tuple[int, ...]]
Attributes = dict[str, dict[str, int]]
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)
_AGREEING = (nn.Linear, nn.Embedding, Conv1D, nn.modules.conv._ConvNd, *_NORMS)  # `reshape` sets their numbers itself


@dataclass(frozen=True)
class Rule:
    """`attribute` of the modules that match `module` shrinks in proportion to dimension `dim` of the tensor below."""

    module: str  # with `*` for the index of a block
    attribute: str
    tensor: str  # relative to the module
    dim: int


@dataclass(frozen=True)
class Follows:
    """Views as `rank` sizes in the modules that match `module` and hold a cut tensor: the size in `place` is what an
    input leaves that they do not fit."""

    module: str
    rank: int
    place: int

    @property
    def attribute(self) -> str:
        """What the modeling file calls it."""
        return f"view.{self.rank}"


Change = Rule | Follows


def expand(rules: Iterable[Change], model: nn.Module, before: Shapes, after: Shapes) -> Attributes:
    """Values for every module that the rules match and whose tensor changed."""
    found: Attributes = {}
    cut = [name for name, shape in after.items() if before.get(name) != shape]
    for rule in rules:
        for name, module in model.named_modules():
            if pattern(name) != rule.module:
                continue
            if isinstance(rule, Follows):
                if any(tensor.startswith(f"{name}." if name else "") for tensor in cut):
                    found.setdefault(name, {})[rule.attribute] = rule.place
                continue
            tensor = f"{name}.{rule.tensor}".lstrip(".")
            if tensor not in after or before.get(tensor) == after[tensor]:
                continue
            if not _has(module, rule.attribute):
                continue  # hybrid models have attentions of several classes at the same place of their layers
            value = _scaled(_get(module, rule.attribute), before[tensor][rule.dim], after[tensor][rule.dim])
            if value is None:
                raise ModelError(f"{name}.{rule.attribute} cannot follow {tensor}: {before[tensor]} → {after[tensor]}")
            if value != _get(module, rule.attribute):
                found.setdefault(name, {})[rule.attribute] = value
    return found


def candidates(model: nn.Module, read: Read, before: Shapes, after: Shapes) -> Iterator[tuple[Rule, Fraction]]:
    """Integers that the forward reads, in modules above a cut tensor, that can shrink in its proportion."""
    seen: set[tuple] = set()
    modules = dict(model.named_modules())
    for name, attribute in _read_by(model, read):
        value = _get(modules[name], attribute)
        for tensor, old in before.items():
            if (name and not tensor.startswith(name + ".")) or tensor not in after:
                continue
            for dim, (one, other) in enumerate(zip(old, after[tensor], strict=True)):
                scaled = None if one == other else _scaled(value, one, other)
                key = (pattern(name), attribute, scaled)
                if scaled is not None and key not in seen:
                    seen.add(key)
                    yield Rule(pattern(name), attribute, tensor[len(name) :].lstrip("."), dim), Fraction(other, one)


@contextmanager
def set_for(model: nn.Module, attributes: Attributes) -> Iterator[None]:
    """Have the modules these attributes for a while."""
    originals = {name: dict(vars(model.get_submodule(name))) for name in attributes}
    try:
        for name, values in attributes.items():
            patch(model.get_submodule(name), values)
        yield
    finally:
        for name, state in originals.items():
            own = vars(model.get_submodule(name))
            own.clear()
            own.update(state)


def _read_by(model: nn.Module, read: Read) -> list[tuple[str, str]]:
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
        runs(model, read)
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


def pattern(name: str) -> str:
    """The name of a module with `*` for the indices of blocks."""
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name)
