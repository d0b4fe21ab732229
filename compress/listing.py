"""What `compress ls` shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from compress import registry
from compress.errors import InputError

PARTS = {
    "criteria": registry.criteria,
    "allocators": registry.allocators,
    "ratios": registry.ratios,
    "repairs": registry.repairs,
    "sources": registry.sources,
    "statistics": registry.statistics,
}
RECIPES = Path(__file__).resolve().parent.parent / "recipes"


def listing(what: str | None) -> tuple[Any, Any]:
    """What to draw and the same as data, for one of the lists or for all."""
    if what == "schema":
        from compress.recipe.schema import json_schema

        schema = json_schema()
        return json.dumps(schema, indent=2, ensure_ascii=False), schema
    names = [what] if what else [*PARTS, *(["recipes"] if RECIPES.is_dir() else [])]
    data = {name: _recipes() if name == "recipes" else _parts(PARTS[name]) for name in names}
    return _table(data), data[what] if what else data


def _parts(parts: registry.Registry) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "about": (entry := parts.get(name)).about,
            "arguments": {
                key: None if parameter.default is parameter.empty else parameter.default
                for key, parameter in entry.parameters.items()
            },
            "needs": list(entry.meta.get("needs", ())),
        }
        for name in parts.names()
    ]


def _recipes() -> list[dict[str, Any]]:
    from compress.recipe.read import read_recipe

    if not RECIPES.is_dir():
        raise InputError(f"{RECIPES}: the recipes are part of the source tree, and it is not there")
    return [
        {"name": str(path.relative_to(RECIPES.parent)), "about": read_recipe(path).about}
        for path in sorted(RECIPES.rglob("*.yaml"))
    ]


def _table(data: dict[str, list[dict[str, Any]]]) -> Any:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("", "arguments", "what it does"):
        table.add_column(column)
    for kind, entries in data.items():
        table.add_section()
        table.add_row(f"[bold]{kind}[/]", "", "")
        for entry in entries:
            arguments = ", ".join(f"{key}={value}" for key, value in entry.get("arguments", {}).items())
            table.add_row(entry["name"], escape(arguments), escape(entry["about"]))
    return table
