"""What `compress ls` shows."""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import to_jsonable_python

from compress.files.shipped import RECIPES, names
from compress.recipe.part import Part
from compress.registry import Entry, Registry, registries


def listing(what: str | None) -> tuple[Any, Any]:
    """What to draw and the same as data, for one of the lists or for all."""
    if what == "schema":
        from compress.recipe.schema import json_schema

        schema = json_schema()
        return json.dumps(schema, indent=2, ensure_ascii=False), schema
    if what is not None:
        entries = _entries(what)
        return _table(entries), entries
    data = {kind: _entries(kind) for kind in (*registries(), "recipes")}
    return _overview(data), data


def _entries(kind: str) -> list[dict[str, Any]]:
    return _recipes() if kind == "recipes" else _parts(registries()[kind])


def _parts(parts: Registry) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "about": (entry := parts.get(name)).about,
            "arguments": _arguments(entry),
            "needs": list(getattr(entry.meta, "needs", ())),
        }
        for name in parts.names()
    ]


def _arguments(entry: Entry) -> dict[str, Any]:
    """Name → default (None where one has to be given) of the part's parameters, or of an export format's settings."""
    settings = getattr(entry.target, "settings", None)
    if settings is not None:
        return {
            key: None if field.is_required() else _plain(field.get_default(call_default_factory=True))
            for key, field in settings.model_fields.items()
        }
    return {
        key: None if parameter.default is parameter.empty else _plain(parameter.default)
        for key, parameter in entry.parameters.items()
    }


def _plain(default: Any) -> Any:
    """A default as it would stand in a recipe."""
    return default.written() if isinstance(default, Part) else to_jsonable_python(default, fallback=str)


def _recipes() -> list[dict[str, Any]]:
    from compress.recipe.read import read_recipe

    return [{"name": name, "about": read_recipe(RECIPES / f"{name}.yaml").about} for name in names()]


def _table(entries: list[dict[str, Any]]) -> Any:
    """One list: names as they are typed, whatever the width, and beside them what each does and takes."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column("name", no_wrap=True, min_width=max(len(entry["name"]) for entry in entries))
    table.add_column("what it does", overflow="fold")
    for entry in entries:
        about = Text(entry["about"])
        if arguments := ", ".join(f"{key}={value}" for key, value in entry.get("arguments", {}).items()):
            about.append(f"\n{arguments}", "dim")
        table.add_row(Text(entry["name"], "bold"), about)
    return table


def _overview(data: dict[str, list[dict[str, Any]]]) -> Any:
    """All lists, their names only."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False, show_lines=True)
    table.add_column("list", no_wrap=True)
    table.add_column("names", overflow="fold")
    for kind, entries in data.items():
        table.add_row(Text(kind, "bold"), Text(", ".join(entry["name"] for entry in entries)))
    return Group(table, Text("compress ls LIST says what each does; compress ls schema, what a recipe may say"))
