"""Reading, editing and writing configuration numbers by path, nested configurations included."""

from __future__ import annotations

import copy
import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig

from compress.model.build import model_class

Field = str  # a dotted path, e.g. `text_config.hidden_size`, or of a list's entry `hidden_sizes.0`
MANY = 8  # entries of a list of widths: stages are few
WIDE = 8  # what entries have to be to count as widths: strides, kernels and ratios are smaller
FLOAT = "__float__"
LEGACY_ROPE = {"rope_theta", "partial_rotary_factor"}


def numbers(config: PretrainedConfig, least: int = WIDE) -> dict[Field, int | None]:
    """Every integer of the configuration, and every unset one that may hold an integer.

    Short lists of integers that are all at `least` so large are taken apart: a model of stages has such.

    `head_dim` is among them even where the class does not declare it: many architectures read it if it is there.
    """
    found = {}
    for prefix, part in _parts(config):
        declared = {f.name: str(f.type) for f in dataclasses.fields(part)}
        for name, value in _values(part).items():
            if (isinstance(value, int) and not isinstance(value, bool)) or (
                value is None and "int" in declared.get(name, "") and not name.endswith("_token_id")
            ):
                found[prefix + name] = value
            elif isinstance(value, list | tuple) and _short(value, least):
                found |= {f"{prefix}{name}.{i}": n for i, n in enumerate(value)}
        if "num_attention_heads" in part and "head_dim" not in part:
            found[prefix + "head_dim"] = None
    return found


def flags(config: PretrainedConfig) -> dict[Field, bool | None]:
    """Every true/false value of the configuration."""
    return {
        prefix + name: value
        for prefix, part in _parts(config)
        for name, value in _values(part).items()
        if isinstance(value, bool)
    }


def lists(config: PretrainedConfig, length: int) -> dict[Field, list]:
    """Every list of that length: one entry for each layer."""
    return {
        prefix + name: list(value)
        for prefix, part in _parts(config)
        for name, value in _values(part).items()
        if isinstance(value, list | tuple) and len(value) == length
    }


def config_from(raw: Mapping[str, Any]) -> PretrainedConfig:
    """The configuration object of a `config.json`."""
    return CONFIG_MAPPING[raw["model_type"]].from_dict(decoded(raw))


def decoded(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of a `config.json` as values: JSON has no infinity, so transformers write `{"__float__": …}`."""
    return {key: _value(value) for key, value in raw.items()}


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        return float(value[FLOAT]) if value.keys() == {FLOAT} else decoded(value)
    return [_value(one) for one in value] if isinstance(value, list) else value


def edited(config: PretrainedConfig, edits: Mapping[Field, Any]) -> PretrainedConfig:
    """A copy with these values. The class's own checks do not run: experiments may pass through states it refuses."""
    config = copy.deepcopy(config)
    for path, value in edits.items():
        part, name, place = _owner(config, path)
        setattr(part, name, value if place is None else _with(getattr(part, name), place, value))
    return config


def written(raw: Mapping[str, Any], config: PretrainedConfig, edits: Mapping[Field, Any]) -> dict[str, Any]:
    """`config.json` of the edited configuration: the file as it was, the edits, and the older spelling of RoPE.

    transformers 4 reads `rope_theta` at the top level only and takes 10000 in silence when it is not there.
    """
    result = copy.deepcopy(dict(raw))
    for path, value in edits.items():
        part, name, entry = _owner(config, path)
        place = result
        for parent in _parents(path):
            place = place.setdefault(parent, {})
        names = [name, *(alias for alias, canonical in part.attribute_map.items() if canonical == name)]
        before = next((place[own] for own in names if own in place), getattr(part, name, None))
        for own in names:
            place.pop(own, None)
        place[name] = value if entry is None else _with(before, entry, value)
    for prefix, part in _parts(config):
        place = result
        for parent in prefix.split(".")[:-1]:
            place = place.get(parent, {}) if isinstance(place.get(parent), dict) else {}
        _add_legacy_rope(place, part)
        _leave_stages_out(place)
    return result


def read_back(written_config: Mapping[str, Any]) -> tuple[PretrainedConfig, type]:
    """The configuration and model class that transformers make of this `config.json`.

    Raises whatever transformers raises when it refuses the configuration, ModelError where it knows no such class.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(written_config), encoding="utf-8")
        config = AutoConfig.from_pretrained(folder)
    config.validate()
    return config, model_class(config)


def value_at(config: PretrainedConfig, path: Field) -> Any:
    part, name, place = _owner(config, path)
    value = getattr(part, name, None)
    return value if place is None or value is None else value[place]


def in_raw(raw: Mapping[str, Any], config: PretrainedConfig, path: Field) -> bool:
    """Is the field spelled out in the file (under its own name or an alias)?"""
    part, name, _ = _owner(config, path)
    place: Any = raw
    for parent in _parents(path):
        place = place.get(parent) or {}
    return name in place or any(a in place for a, canonical in part.attribute_map.items() if canonical == name)


def spelled_out(raw: Mapping[str, Any], config: PretrainedConfig, values: Mapping[Field, int]) -> dict[Field, int]:
    """The numbers to write: those that change, and those that the file leaves to be derived from others."""
    before = numbers(config)
    return {name: n for name, n in values.items() if before[name] != n or not in_raw(raw, config, name)}


def _leave_stages_out(place: dict) -> None:
    """A backbone's stages are as many as its layers. Where the last one is its output they need not be written."""
    if place.get("out_features") and place["out_features"] == place.get("stage_names", [])[-1:]:
        for name in ("stage_names", "out_features", "out_indices"):
            place.pop(name, None)


def _add_legacy_rope(place: dict, part: PretrainedConfig) -> None:
    rope = getattr(part, "rope_parameters", None)
    if not isinstance(rope, dict) or "rope_theta" not in rope or not place:
        return
    for name in LEGACY_ROPE & rope.keys():
        place.setdefault(name, rope[name])
    if rope.get("rope_type", "default") != "default":
        place.setdefault("rope_scaling", {k: v for k, v in rope.items() if k not in LEGACY_ROPE})


def _parts(config: PretrainedConfig, prefix: str = "") -> Iterator[tuple[str, PretrainedConfig]]:
    yield prefix, config
    for name, value in _values(config).items():
        if isinstance(value, PretrainedConfig):
            yield from _parts(value, f"{prefix}{name}.")


def _values(config: PretrainedConfig) -> dict[str, Any]:
    return {k: v for k, v in vars(config).items() if not k.startswith("_")}


def _owner(config: PretrainedConfig, path: Field) -> tuple[PretrainedConfig, str, int | None]:
    """The configuration that has the field, its name there, and the place in it if it is a list's entry."""
    for parent in _parents(path):
        config = getattr(config, parent)
    name, _, entry = path.removeprefix("".join(f"{parent}." for parent in _parents(path))).partition(".")
    return config, name, int(entry) if entry else None


def _parents(path: Field) -> list[str]:
    """The configurations that a field is nested in."""
    parts = path.split(".")
    return parts[: -2 if parts[-1].isdecimal() else -1]


def _with(values: Any, place: int, value: Any) -> list[Any]:
    return [value if i == place else own for i, own in enumerate(values)]


def _short(values: Sequence[Any], least: int) -> bool:
    """Whether there is a number for each stage."""
    return 1 < len(values) <= MANY and all(type(n) is int and n >= least for n in values)
