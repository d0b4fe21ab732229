"""Writing a pruned model that no stock architecture fits: its original configuration, shapes, one modeling file."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import transformers
from torch import nn
from transformers import PretrainedConfig

from compress.errors import ModelError
from compress.graph.ends import embeddings
from compress.model import modeling_compress
from compress.model.build import empty_model
from compress.output_format.attributes import Attributes, Change, Shapes, expand
from compress.output_format.config import Field, decoded, edited, numbers, value_at, written
from compress.output_format.groups import following
from compress.output_format.native import depth_edits, plain
from compress.output_format.probe import aliases, both_ways, reads, runs, same_outside, shapes_of, stacks
from compress.output_format.search import find_rules

PROBED = 4


@dataclass(frozen=True)
class GenericPlan:
    """How `trust_remote_code=True`, or `import compress.model.register`, opens the result.

    Attributes:
        config: the whole `config.json`.
        architecture: class named in it; it lives in the modeling file.
        attributes: {module: {attribute: value}} that loading sets, part of `config`.
        edits: configuration values that change, (old, new) by dotted path.
    """

    config: dict[str, Any]
    architecture: str
    attributes: Attributes
    edits: dict[Field, tuple[Any, Any]] = field(default_factory=dict)


def generic_plan(
    config: PretrainedConfig | Mapping[str, Any],
    cls: type,
    shapes: Shapes,
    *,
    kept_layers: Mapping[str, Sequence[int]] | None = None,
    extra_biases: Collection[str] = (),
    head_dim: int | None = None,
    raw: Mapping[str, Any] | None = None,
    laid: Mapping[str, list[Any]] | None = None,
) -> GenericPlan:
    """Record the shapes and find the attributes that modules need; arguments as for `find_native`, and `laid` says how
    tensors are to be put together of axes, if that is known (`trial.expected`).

    The plan was checked by building the model from it on meta, comparing every name and shape, and running it.

    Raises:
        ModelError: the architecture cannot run at these shapes, or is reached by no auto class.
    """
    config, cls, raw, older = plain(config, cls, raw)
    extra_biases = {*extra_biases, *older}
    original = empty_model(edited(config, {}), cls)
    depth = depth_edits(config, cls, original, kept_layers or {})
    if isinstance(depth, str):
        raise ModelError(depth)
    edits = {**depth, **_free_edits(config, cls, original, shapes)}
    base = empty_model(edited(config, edits), cls)
    before = shapes_of(base)
    known = {name: tuple(shape) for name, shape in shapes.items() if name not in extra_biases}
    if missing := sorted(known.keys() - before.keys()):
        raise ModelError(f"{cls.__name__} has no {missing[0]}")
    differing = {name: shape for name, shape in known.items() if before[name] != shape}
    biases = {name: tuple(shapes[name]) for name in sorted(extra_biases) if name in shapes}
    attributes = find_attributes(config, cls, base, edits, differing, biases, head_dim=head_dim, laid=laid)
    compressed = {
        "model_type": config.model_type,
        "architecture": cls.__name__,
        "shapes": {name: list(shape) for name, shape in differing.items()},
        "biases": {name: list(shape) for name, shape in biases.items()},
        "attributes": attributes,
    }
    auto = auto_class(config, cls)
    result = {**written(raw, config, edits), "compressed": compressed, "model_type": config.model_type}
    try:
        made = modeling_compress.CompressedConfig.from_dict(decoded(result))
    except ValueError as error:
        raise ModelError(f"{cls.__name__} takes no such configuration: {error}") from error
    result = {
        **result,
        "model_type": modeling_compress.MODEL_TYPE,
        "architectures": [modeling_compress.ENTRIES[auto]],
        "auto_map": made.to_dict()["auto_map"],
    }
    _check(result, auto, shapes, differing, base)
    changed = {name: (value_at(config, name), value) for name, value in edits.items()}
    return GenericPlan(result, modeling_compress.ENTRIES[auto], attributes, changed)


def auto_class(config: PretrainedConfig, cls: type) -> str:
    """Name of the auto class that leads to `cls`; ModelError when none does.

    A class outside transformers has to be registered with one: the modeling file finds it by nothing else.
    """
    leading = [auto for auto in modeling_compress.ENTRIES if modeling_compress.stock_class(auto, type(config)) is cls]
    stock = getattr(transformers, cls.__name__, None) is cls
    if leading or (stock and modeling_compress.stock_class("AutoModel", type(config)) is not None):
        return min(leading, default="AutoModel", key=lambda auto: auto == "AutoModelForPreTraining")
    if not stock:
        raise ModelError(
            f"transformers knows no {cls.__name__}, so layers of different widths cannot be opened; take `widths: "
            f"uniform`, or have its package call AutoModel.register({type(config).__name__}, {cls.__name__})"
        )
    raise ModelError(f"no auto class leads to {cls.__name__}; save the model under one of its common heads")


def find_attributes(
    config: PretrainedConfig,
    cls: type,
    base: nn.Module,
    edits: Mapping[Field, Any],
    differing: Shapes,
    biases: Shapes,
    *,
    head_dim: int | None = None,
    laid: Mapping[str, list[Any]] | None = None,
) -> Attributes:
    """{module: {attribute: value}} that make the reshaped model run, found on a copy with one layer of each make.

    Args:
        config: the original configuration; `edits` make it that of `base`.
        base: the model on meta before reshaping, at its final depth.
        differing: tensors whose shape differs from the base's.
        biases: tensors to add.
        head_dim: new width of a head; None: unchanged.
        laid: how tensors are to be put together of axes.

    Raises:
        ModelError: no attributes make it run.
    """
    rules = _rules(edited(config, edits), cls, base, differing, biases, head_dim, laid)
    before = shapes_of(base)
    attributes = expand(rules, base, before, {**before, **differing})
    full = empty_model(edited(config, edits), cls)
    modeling_compress.reshape(full, shapes=differing, biases=biases, attributes=attributes)
    with following(full) as groups:
        runs(full, reads(base))
    for name, count in groups.items():
        attributes.setdefault(name, {})["groups"] = count
    return attributes


def _rules(
    config: PretrainedConfig,
    cls: type,
    base: nn.Module,
    differing: Shapes,
    biases: Shapes,
    head_dim: int | None,
    laid: Mapping[str, list[Any]] | None,
) -> tuple[Change, ...]:
    chosen = {stack.name: _examples(stack.name, stack.size, differing) for stack in stacks(base)}
    depth = depth_edits(config, cls, base, chosen)
    if isinstance(depth, str) or not same_outside(empty_model(edited(config, depth), cls), base):
        chosen, depth = {}, {}
    small, reshaped = (empty_model(edited(config, depth), cls) for _ in range(2))
    read = both_ways(base, reads(base))
    if chosen and not runs(
        small, read
    ):  # a pair of limits beside two layers is no list of layers, and was cut like one
        chosen, (small, reshaped) = {}, (empty_model(config, cls) for _ in range(2))
    modeling_compress.reshape(
        reshaped, shapes=_renumbered(differing, chosen), biases=_renumbered(biases, chosen), attributes={}
    )
    with following(reshaped):
        return find_rules(small, reshaped, head_dim, None if laid is None else _renumbered(laid, chosen), read)


def _examples(stack: str, size: int, differing: Shapes) -> list[int]:
    """One layer for every set of tensors that is cut together, at most four, untouched layers last."""
    makes: dict[frozenset[str], int] = {}
    for i in range(size):
        prefix = f"{stack}.{i}."
        makes.setdefault(frozenset(n[len(prefix) :] for n in differing if n.startswith(prefix)), i)
    order = sorted(makes, key=len, reverse=True)
    return sorted(makes[cut] for cut in order[:PROBED])


def _renumbered(shapes: Mapping[str, Sequence[Any]], chosen: Mapping[str, Sequence[int]]) -> dict[str, tuple[Any, ...]]:
    """What is said of tensors, by their names in the model that has only the `chosen` layers."""
    result = {}
    for name, shape in shapes.items():
        stack = next((s for s in chosen if name.startswith(s + ".")), None)
        if stack is not None:
            index, _, rest = name[len(stack) + 1 :].partition(".")
            if not index.isdigit():  # a parametrised weight: a list that has tensors of its own beside its modules
                result[name] = tuple(shape)
                continue
            if int(index) not in chosen[stack]:
                continue
            name = f"{stack}.{list(chosen[stack]).index(int(index))}.{rest}"
        result[name] = tuple(shape)
    return result


def _free_edits(config: PretrainedConfig, cls: type, model: nn.Module, shapes: Shapes) -> dict[Field, int]:
    """A smaller vocabulary as a configuration number: losses and generation read it."""
    before = shapes_of(model)
    table = embeddings(model, "input")
    names = [n for n, p in model.named_parameters() if table is not None and p is getattr(table, "weight", None)]
    if not names or names[0] not in shapes or shapes[names[0]][0] == before[names[0]][0]:
        return {}
    size = shapes[names[0]][0]
    return {n: size for n, v in numbers(config).items() if v == before[names[0]][0] and n.endswith("vocab_size")}


def _check(written_config: dict[str, Any], auto: str, shapes: Shapes, differing: Shapes, base: nn.Module) -> None:
    config = modeling_compress.CompressedConfig.from_dict(decoded(written_config))
    cls = modeling_compress.CompressedModel.class_for(config, auto)
    model = empty_model(config, cls)
    built, ties = shapes_of(model), aliases(model)
    wrong = [n for n, shape in shapes.items() if built.get(n) != tuple(shape)]
    lost = [n for n in built if n not in shapes and any(n in tie and tie & differing.keys() for tie in ties)]
    stray = [n for n in lost if not any(n in tie and built[n] == built[o] for tie in ties for o in tie & shapes.keys())]
    if wrong or stray:
        raise ModelError(f"{(wrong + stray)[0]} cannot be given its shape in {type(model).__name__}")
    if not runs(model, reads(base)):
        raise ModelError(f"{type(model).__name__} does not run at the wanted shapes")
