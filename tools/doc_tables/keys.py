"""Every key of a recipe: type, default and meaning, from the models that check it."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from compress import registry
from compress.recipe.export import settings_of
from compress.recipe.schema import Calibrate, Recipe
from compress.recipe.token_stage import Stage, Term

from .markdown import either, table

HEAD = ("key", "type", "default", "meaning")
LIMITS = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}"}
LINKED = {"calibrate": "see below", "steps": "list of steps, see below", "export": "see below"}
STAGE = {
    "at": "`features`, or {decoder: layer}",
    "score": "list of terms, see below",
    "keep": "share",
    "power": "number > 0",
}
TERM = {"depths": "list of layers or shares"}
LONGEST = 2**31
"""Limits from here on are those of the machine, not of the meaning."""


def recipe() -> str:
    """Keys at the top."""
    return model(Recipe, LINKED)


def calibrate() -> str:
    """Keys below `calibrate`."""
    return model(Calibrate)


def steps() -> str:
    """A table for every kind of step, whose first key is its verb; that of whole units first."""
    schema = Recipe.model_json_schema()
    kinds = [schema["$defs"][one["$ref"].rpartition("/")[2]] for one in schema["properties"]["steps"]["items"]["anyOf"]]
    found = []
    for kind in kinds:
        verb, subject = next(iter(kind["properties"].items()))
        title = (
            f"`{verb}: {subject['const']}`" if "const" in subject else f"`{verb}:`{' units' if verb == 'prune' else ''}"
        )
        about = " ".join(kind.get("description", "").split())
        text = f"### {title}\n\n{about}\n\n{_table(kind, schema['$defs'])}"
        found.append(("const" in subject or verb != "prune", title, text))
    return "\n\n".join(text for _, _, text in sorted(found))


def token_stage() -> str:
    """Keys of one stage of the step `tokens`, and of a term of its score."""
    return f"{model(Stage, STAGE)}\n\nA term of `score` has one score by name, and beside it:\n\n{model(Term, TERM)}"


def exports() -> str:
    """A table for every registered format."""
    found = []
    for name in registry.formats.names():
        found.append(f"### `export: {name}`\n\n{sentence(settings_of(name))}\n\n{model(settings_of(name))}")
    return "\n\n".join(found)


def model(settings: type[BaseModel], types: dict[str, str] | None = None) -> str:
    """The keys of one model; `types` are those that are said in words."""
    schema = settings.model_json_schema()
    return _table(schema, schema.get("$defs", {}), types)


def _table(schema: dict[str, Any], defs: dict[str, Any], types: dict[str, str] | None = None) -> str:
    rows = []
    for name, field in schema["properties"].items():
        default = "**required**" if name in schema.get("required", ()) else _default(field.get("default"))
        if name in (types or {}):
            default, shown = default if "required" in default else "–", (types or {})[name]
        else:
            shown = _typed(field, defs)
        rows.append((f"`{name}`", shown, default, field["description"]))
    return table(HEAD, rows)


def sentence(settings: type[BaseModel]) -> str:
    """What the model says of itself, on one line."""
    return " ".join((settings.__doc__ or "").split())


def _default(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, dict) and value.keys() == {"name", "arguments"}:  # a part
        value = value["name"]
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    return f"`{text}`" if text else "–"


def _typed(field: dict[str, Any], defs: dict[str, Any]) -> str:
    """A JSON schema in words."""
    if "$ref" in field:
        field = defs[field["$ref"].rpartition("/")[2]]
    if (word := field.get("format")) is not None:
        return word
    if "enum" in field:
        return either([f"`{value}`" for value in field["enum"]])
    if "const" in field:
        return f"`{field['const']}`"
    if "anyOf" in field:
        several = list(dict.fromkeys(_typed(one, defs) for one in field["anyOf"] if one.get("type") != "null"))
        if several[1:] == [f"list of {several[0]}"]:
            return f"{several[0]}, or a list of them"
        return either(several)
    kind = field.get("type")
    if kind == "array":
        inside = _typed(field["items"], defs)
        return f"list of {inside}{'' if '`' in inside else 's'}"
    if kind == "object":
        inside = [_typed(field[key], defs) for key in ("propertyNames", "additionalProperties") if key in field]
        return f"{{{': '.join(inside if len(inside) == 2 else ['name', *inside])}}}" if inside else "mapping"
    limits = [
        text.format(field[key]) for key, text in LIMITS.items() if key in field and not abs(field[key]) >= LONGEST
    ]
    return ", ".join((str(kind), *limits))
