"""A part in a recipe: a name, or `{name: {its arguments}}`, looked up in a registry while the recipe is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, ValidationError, WithJsonSchema
from pydantic_core import InitErrorDetails

from compress.errors import InputError
from compress.files.ordinary import is_path
from compress.recipe.mistake import mistake
from compress.registry import (
    MISTAKEN_ARGUMENT,
    Registry,
    allocators,
    criteria,
    did_you_mean,
    ratios,
    repairs,
    sources,
    token_residuals,
    token_scores,
    token_selects,
)


@dataclass(frozen=True)
class Part:
    """The name of a registered part and the arguments that the recipe gives it."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        given = ", ".join(f"{key}={value}" for key, value in self.arguments.items())
        return f"{self.name}({given})" if given else self.name

    def bind(self, registry: Registry) -> partial[Any]:
        """The part's function or class with these arguments filled in."""
        return registry.get(self.name).bind(self.arguments)

    def written(self) -> str | dict[str, Any]:
        """As it stands in a recipe."""
        return {self.name: self.arguments} if self.arguments else self.name


def _checked(value: Any, registry: Registry) -> Part:
    part = _read(value, registry.kind)
    try:
        entry = registry.get(part.name)
    except InputError as error:
        raise mistake(str(error)) from None
    if problems := entry.problems(part.arguments):
        details = [
            InitErrorDetails(type=mistake(text, MISTAKEN_ARGUMENT), loc=(part.name, *place), input=value)
            for place, text in problems
        ]
        raise ValidationError.from_exception_data(registry.kind, details)
    return part


def _read(value: Any, kind: str) -> Part:
    if isinstance(value, Part):
        return value
    if isinstance(value, str):
        return Part(value)
    if isinstance(value, dict) and len(value) == 1:
        name, arguments = next(iter(value.items()))
        if isinstance(name, str) and (arguments is None or isinstance(arguments, dict)):
            return Part(name, dict(arguments or {}))
    raise mistake(f"a {kind} is written as its name, or as {{name: {{arguments}}}}")


def _data(value: Any) -> Part | str:
    """A source's name or part, a local file or folder, or a dataset's hub id."""
    if not isinstance(value, str | Path):
        return _checked(value, sources)
    text = str(value)
    if text in sources.names():
        return _checked(text, sources)
    if not is_path(Path(text)):
        raise mistake(f"{text[:80]!r}… names no file, as no file system takes such a name")
    if Path(text).expanduser().exists():
        return text
    if "/" not in text or Path(text).suffix in (".txt", ".jsonl", ".json", ".parquet"):
        names = sources.names()
        listed = f" (sources: {', '.join(names)})" if names else ""
        cure = did_you_mean(text, names) or "; a dataset of the hub is written owner/name"
        raise mistake(f"{text!r} is no source, file or folder{cure}{listed}")
    return text


def _schema(kind: str) -> WithJsonSchema:
    return WithJsonSchema(
        {
            "description": f"a {kind}: its name, or {{name: {{arguments}}}}",
            "format": kind,
            "anyOf": [{"type": "string"}, {"type": "object", "minProperties": 1, "maxProperties": 1}],
        }
    )


def _written(data: Part | str) -> Any:
    return data.written() if isinstance(data, Part) else data


_writing = PlainSerializer(_written)
Criterion = Annotated[Part, PlainValidator(partial(_checked, registry=criteria)), _writing, _schema("criterion")]
Allocator = Annotated[Part, PlainValidator(partial(_checked, registry=allocators)), _writing, _schema("allocator")]
Ratio = Annotated[Part, PlainValidator(partial(_checked, registry=ratios)), _writing, _schema("layer ratio")]
Repair = Annotated[Part, PlainValidator(partial(_checked, registry=repairs)), _writing, _schema("repair")]
TokenScore = Annotated[Part, PlainValidator(partial(_checked, registry=token_scores)), _writing, _schema("token score")]
TokenSelect = Annotated[
    Part, PlainValidator(partial(_checked, registry=token_selects)), _writing, _schema("token selection")
]
TokenResidual = Annotated[
    Part, PlainValidator(partial(_checked, registry=token_residuals)), _writing, _schema("token residual")
]
Data = Annotated[Part | str, PlainValidator(_data), _writing, _schema("source, path or hub id")]
