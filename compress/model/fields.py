"""What of config.json is looked at before anything is built from it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from compress.errors import InputError, ModelError

if TYPE_CHECKING:
    from compress.checkpoint.open import Checkpoint

LAYERS = {
    "num_hidden_layers",
    "num_layers",
    "n_layer",
    "n_layers",
    "encoder_layers",
    "decoder_layers",
    "num_encoder_layers",
    "num_decoder_layers",
}
"""Fields, in a config or in that of a tower, that say how many blocks are built."""

SIZES = {
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
}

QUICK = 1000
"""Blocks that are built in a moment: up to here a wrong number is found by what is missing then."""

LONGEST = 600
"""Characters of another library's message that are passed on."""


def check_fields(checkpoint: Checkpoint) -> None:
    """Raise InputError or ModelError for a field that would break, or take for ever, where the model is built."""
    file, raw = checkpoint.folder / "config.json", checkpoint.config
    kind, named = raw.get("model_type"), raw.get("architectures")
    if kind is not None and not isinstance(kind, str):
        raise InputError(f"{file}: model_type is {kind!r}; it is one name, such as 'llama'")
    if named is not None and not (isinstance(named, list) and all(isinstance(name, str) for name in named)):
        raise InputError(f"{file}: architectures is {named!r}; it is a list of names of classes")
    for path, count in _counts(raw, LAYERS | SIZES):
        if count < 0:
            raise InputError(f"{file}: {path} is {count}; what it counts is not negative")
    for path, count in layer_counts(raw):
        if count > QUICK and count > (stored := _blocks(checkpoint)):
            where = next(iter(checkpoint.tensors.values())).file
            raise ModelError(
                f"{file}: {path} is {count}, but {where.name} and its like hold {stored} numbered blocks at most; "
                f"set {path} to the number of layers that the model has"
            )


def check_auto_map(checkpoint: Checkpoint, config: Any) -> None:
    """Raise InputError where `auto_map`, which transformers leave in the config even where its code is not run, is no
    mapping of classes to code."""
    found = getattr(config, "auto_map", None)
    if found is None:
        return
    if isinstance(found, dict):
        parts = [part for value in found.values() for part in (value if isinstance(value, list | tuple) else [value])]
        if all(part is None or isinstance(part, str) for part in parts):
            return
    file = checkpoint.folder / "config.json"
    raise InputError(f"{file}: auto_map is {found!r}; it maps names of classes to 'file.Class'; mend or remove it")


def reason(error: Exception, config: dict[str, Any]) -> str:
    """The whole message of another library on one line, and the fields of the config that it may be about.

    A KeyError of `hidden_act: nosuch` says 'nosuch' and no more, a division by zero not even that.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    if len(text) > LONGEST:
        text = text[:LONGEST] + "…"
    if found := [f"{path} {value!r}" for path, value in _spoken_of(config, text)]:
        text += f" (config.json: {', '.join(found[:3])})"
    return text


def layer_counts(raw: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """The fields that say how many blocks are built, of the config and of its towers: path, number."""
    yield from _counts(raw, LAYERS)


def _counts(raw: dict[str, Any], fields: set[str]) -> Iterator[tuple[str, int]]:
    for prefix, part in (("", raw), *((f"{key}.", part) for key, part in raw.items() if isinstance(part, dict))):
        for key in sorted(fields & set(part)):
            if type(part[key]) is int:
                yield prefix + key, part[key]


def _blocks(checkpoint: Checkpoint) -> int:
    """How many numbered blocks the stored names tell of at most."""
    return 1 + max(
        (int(n) for name in checkpoint.tensors for n in re.findall(r"(?<![^.])\d+(?![^.])", name)), default=0
    )


def _spoken_of(data: dict[str, Any], text: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, dict):
            yield from _spoken_of(value, text, f"{prefix}{key}.")
        elif _said(key, value, text):
            yield prefix + key, value


def _said(key: str, value: Any, text: str) -> bool:
    if isinstance(value, str):
        return bool(value) and repr(value) in text
    if type(value) is not int or value > 0:  # counts stand in every message
        return False
    return str(value) in text if value else "by zero" in text and _counted(key)


def _counted(key: str) -> bool:
    return key in LAYERS | SIZES or key.startswith(("num_", "n_")) or key.endswith(("_size", "_dim"))
