"""Writing a pruned model as an ordinary checkpoint that stock transformers open, where its shapes allow that."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import transformers
from torch import nn
from transformers import PretrainedConfig

from compress.model.build import empty_model
from compress.output_format.by_layer import by_layer
from compress.output_format.config import (
    Field,
    config_from,
    edited,
    flags,
    in_raw,
    numbers,
    read_back,
    spelled_out,
    value_at,
    written,
)
from compress.output_format.probe import Key, Stack, aliases, measure, same_outside, shapes_of, sizes, stacks, uneven
from compress.output_format.relatives import relatives
from compress.output_format.solve import solve

Shapes = Mapping[str, tuple[int, ...]]
PROBED_LAYERS = 4
_depths: dict[tuple[type, type], dict[str, Field]] = {}  # stack name → its number, by configuration and model class


@dataclass(frozen=True)
class NativePlan:
    """How stock transformers open the result.

    Attributes:
        config: the whole `config.json`.
        architecture: class name in `transformers`; `model_type` likewise.
        zeros: tensors that this architecture has and the pruned model lacks; they are written as zeros.
        edits: configuration values that change, (old, new) by dotted path.
        renames: state dict names that differ in the written architecture, old → new.
    """

    config: dict[str, Any]
    architecture: str
    model_type: str
    zeros: dict[str, tuple[int, ...]] = field(default_factory=dict)
    edits: dict[Field, tuple[Any, Any]] = field(default_factory=dict)
    renames: dict[str, str] = field(default_factory=dict)


def find_native(
    config: PretrainedConfig | Mapping[str, Any],
    cls: type,
    shapes: Shapes,
    *,
    kept_layers: Mapping[str, Sequence[int]] | None = None,
    extra_biases: Collection[str] = (),
    head_dim: int | None = None,
    raw: Mapping[str, Any] | None = None,
) -> NativePlan | str:
    """Find the configuration under which stock transformers build exactly these shapes.

    Numbers are found by experiment: change one, build on meta, see which sizes move. The answer was checked by
    building the model from the configuration as it will be written and comparing every name and shape.

    Args:
        config: original configuration, or the contents of its `config.json`.
        cls: original model class.
        shapes: shape of every tensor that is left, by state dict name; layers renumbered; one name of a tie is enough.
        kept_layers: for each stack of blocks that lost some (name of its ModuleList), the original indices that stay.
        extra_biases: biases that must exist beside those of the original, e.g. `….o_proj.bias`.
        head_dim: new width of a head; None: unchanged. Sizes of projections alone cannot tell heads from width.
        raw: contents of `config.json` when `config` is no mapping; by default what transformers would write.

    Returns:
        The plan, or the reason why there is none (then the generic modeling file is the way).
    """
    config, cls, raw, biases = plain(config, cls, raw)
    extra_biases = {*extra_biases, *biases}
    raw["architectures"] = [cls.__name__]
    model = empty_model(edited(config, {}), cls)
    request = _Request(model, dict(shapes), dict(kept_layers or {}), frozenset(extra_biases), head_dim)
    own = _fit(raw, config, cls, request)
    if isinstance(own, NativePlan):
        return own
    reasons = [f"{cls.__name__}: {own}"]
    if uneven(request.shapes, shapes_of(model)):
        return reasons[0]
    for rewritten, other in relatives(config, cls):
        try:
            plan = _fit(rewritten, config_from(rewritten), other, request)
        except Exception as refusal:  # the relative does not take even the original numbers
            plan = _brief(refusal)
        if isinstance(plan, NativePlan):
            changes = {"model_type": (config.model_type, plan.model_type), **plan.edits}
            return replace(plan, config={**_foreign_keys(raw, config), **plan.config}, edits=changes)
        reasons.append(f"{other.__name__}: {plan}")
    return "; ".join(reasons)


def plain(
    config: PretrainedConfig | Mapping[str, Any], cls: type, raw: Mapping[str, Any] | None
) -> tuple[PretrainedConfig, type, dict[str, Any], tuple[str, ...]]:
    """The configuration as an object, the stock class, the contents of `config.json`, biases that the class lacks.

    A checkpoint that is itself of the generic kind stands for the stock one underneath.
    """
    if not isinstance(config, PretrainedConfig):
        raw = dict(config)
    else:
        raw = dict(raw if raw is not None else config.to_diff_dict())
    if "compressed" not in raw:
        return config if isinstance(config, PretrainedConfig) else config_from(raw), cls, raw, ()
    under = raw["compressed"]
    rest = {k: v for k, v in raw.items() if k not in ("compressed", "auto_map")}
    raw = {**rest, "model_type": under["model_type"], "architectures": [under["architecture"]]}
    return config_from(raw), getattr(transformers, under["architecture"]), raw, tuple(under["biases"])


def depth_edits(
    config: PretrainedConfig, cls: type, model: nn.Module, kept_layers: Mapping[str, Sequence[int]]
) -> dict[Field, Any] | str:
    """New values of the numbers of layers and of every list with one entry a layer, or why there are none."""
    edits: dict[Field, Any] = {}
    outer = stacks(model)
    inner = [stack for name in kept_layers if (stack := _stage(model, name, outer)) is not None]
    for stack in [*outer, *inner]:
        if stack.name not in kept_layers or len(kept_layers[stack.name]) == stack.size:
            continue
        number = _depth_fields(config, cls, [stack]).get(stack.name)
        if number is None:
            return f"no number of the configuration sets the length of {stack.name}"
        kept = kept_layers[stack.name]
        edits[number] = len(kept)
        if stack in outer:
            edits |= by_layer(config, cls, edits, stack.size, kept)
    if unknown := set(kept_layers) - {stack.name for stack in [*outer, *inner]}:
        return f"{min(unknown)} is no list of blocks"
    return edits


def _stage(model: nn.Module, name: str, outer: Sequence[Stack]) -> Stack | None:
    """The list of blocks of that name inside of another one, None where there is none."""
    try:
        found = model.get_submodule(name)
    except AttributeError:
        return None
    if not isinstance(found, nn.ModuleList | nn.Sequential) or any(stack.name == name for stack in outer):
        return None
    return Stack(name, len(found))


def shrunk(config: PretrainedConfig, cls: type, model: nn.Module, depth: Mapping[Field, Any]) -> dict[Field, Any]:
    """Edits that leave only the first few layers: what experiments are made on."""
    edits: dict[Field, Any] = dict(depth)
    for name, number in _depth_fields(config, cls, stacks(model)).items():
        size = edits.get(number, next(s.size for s in stacks(model) if s.name == name))
        now = edited(config, depth)
        edits[number] = min(PROBED_LAYERS, size)
        edits |= by_layer(now, cls, {number: edits[number]}, size, range(edits[number]))
    return edits if same_outside(empty_model(edited(config, edits), cls), model) else dict(depth)


@dataclass(frozen=True)
class _Request:
    model: nn.Module  # the original, on meta
    shapes: dict[str, tuple[int, ...]]
    kept_layers: dict[str, Sequence[int]]
    extra_biases: frozenset[str]
    head_dim: int | None


def _fit(raw: dict[str, Any], config: PretrainedConfig, cls: type, request: _Request) -> NativePlan | str:
    if reason := uneven(request.shapes, shapes_of(request.model)):
        return f"widths differ by layer: {reason}"
    depth = depth_edits(config, cls, request.model, request.kept_layers)
    if isinstance(depth, str):
        return depth
    small = shrunk(config, cls, request.model, depth)
    try:
        probe = empty_model(edited(config, small), cls)
    except Exception as refusal:
        return f"{len(request.kept_layers)} stacks of this length cannot be built ({_brief(refusal)})"
    wanted: dict[Key, int] = {
        (name, dim): n for name in shapes_of(probe) for dim, n in enumerate(request.shapes.get(name, ()))
    }
    now = measure(config, cls, small) or sizes(probe)  # what is measured is remembered
    if request.head_dim is None:
        wanted |= {key: n for key, n in now.items() if key[0].startswith("@")}
    else:
        wanted |= {key: request.head_dim for key in now if key[0].startswith("@")}
    values: dict[Field, Any] = {}
    if any(now.get(key) != n for key, n in wanted.items()):
        solution = solve(config, cls, wanted, fixed=small)
        if solution.trouble:
            return solution.trouble
        values = spelled_out(raw, config, solution.values)
    edits = {**depth, **values}
    added = _flags_for(config, cls, {**small, **values}, request.extra_biases, probe)
    if isinstance(added, str):
        return added
    edits |= added
    edits = {k: v for k, v in edits.items() if value_at(config, k) != v or not in_raw(raw, config, k)}
    return _checked(raw, config, edits, request)


def _flags_for(
    config: PretrainedConfig, cls: type, edits: Mapping[Field, Any], biases: Collection[str], probe: nn.Module
) -> dict[Field, bool] | str:
    """Flags to switch on so that the biases exist. Layers beyond the probed ones follow the first."""
    there = {key[0] for key in measure(config, cls, edits) or ()}
    held = [s.name + "." for s in stacks(probe)]
    lacking = {name for name in biases if name not in there and not _beyond(name, held)}
    chosen: dict[Field, bool] = {}
    for name, value in flags(config).items() if lacking else ():
        flipped = measure(config, cls, {**edits, **chosen, name: not value})
        gained = {key[0] for key in flipped or ()} - there
        if flipped and gained & lacking and not there - {key[0] for key in flipped}:
            chosen[name] = not value
            lacking -= gained
    return f"it has no {min(lacking)}" if lacking else chosen


def _beyond(name: str, held: list[str]) -> bool:
    return any(name.startswith(p) and int(name[len(p) :].split(".")[0]) >= PROBED_LAYERS for p in held)


def _checked(raw: dict[str, Any], config: PretrainedConfig, edits: dict[Field, Any], request: _Request) -> Any:
    """Build from the configuration as written and compare every name and shape."""
    result = written(raw, config, edits)
    try:
        read, cls = read_back(result)
        model = empty_model(read, cls)
    except Exception as refusal:
        return f"refused: {_brief(refusal)}"
    built, ties = shapes_of(model), aliases(model)
    expected = dict(request.shapes)
    known = shapes_of(request.model)
    zeros: dict[str, tuple[int, ...]] = {}
    for name, shape in built.items():
        if name in expected:
            if tuple(expected[name]) != shape:
                return f"{name} would be {list(shape)}, not {list(expected[name])}"
        elif any(name in tie and tie & expected.keys() for tie in ties) or known.get(name) == shape:
            continue
        elif name.endswith("bias"):
            zeros[name] = shape
        else:
            return f"it has {name}, which the pruned model lacks"
    if missing := sorted((expected.keys() | request.extra_biases) - built.keys()):
        return f"it has no {missing[0]}"
    zeros = {name: shape for name, shape in zeros.items() if name not in request.extra_biases}
    before = {name: value_at(config, name) for name in edits}
    return NativePlan(
        config=result,
        architecture=cls.__name__,
        model_type=read.model_type,
        zeros=zeros,
        edits={name: (before[name], value) for name, value in edits.items()},
    )


def _depth_fields(config: PretrainedConfig, cls: type, asked: Sequence[Stack]) -> dict[str, Field]:
    """For each stack of blocks the number that sets its length, by experiment."""
    found = _depths.setdefault((type(config), cls), {})
    for stack in asked:
        if stack.name not in found and (name := _depth_field(config, cls, stack)):
            found[stack.name] = name
    return {stack.name: found[stack.name] for stack in asked if stack.name in found}


def _depth_field(config: PretrainedConfig, cls: type, stack: Stack) -> Field | None:
    for name, value in numbers(config, least=1).items():
        if value != stack.size:
            continue
        try:
            short = empty_model(edited(config, {name: 1}), cls)
            if len(short.get_submodule(stack.name)) == 1:  # pyright: ignore[reportArgumentType]
                return name
        except Exception:  # another number of the same value
            continue
    return None


def _foreign_keys(raw: Mapping[str, Any], config: PretrainedConfig) -> dict[str, Any]:
    """What a rewritten configuration must carry over from the file: keys that no architecture declares."""
    declared = set(vars(type(config)).get("__dataclass_fields__", {}))
    return {k: v for k, v in raw.items() if k not in declared and k not in ("model_type", "architectures", "auto_map")}


def _brief(refusal: Exception) -> str:
    return str(refusal).strip().splitlines()[-1].strip()[:160] if str(refusal).strip() else type(refusal).__name__
