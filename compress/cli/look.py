"""What only looks: compress inspect, compress report, compress ls."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from compress import console
from compress.cli.app import Input, Talk, app
from compress.files.kinds import kind_of
from compress.registry import registries


@app.command
def inspect(model: str, /, *, opening: Input = Input(), talk: Talk = Talk()) -> None:
    """Show what of a model can be pruned: families of groups, what each is worth, and what is pinned and why.

    Parameters
    ----------
    model
        A folder, of timm's too, a hub id or an .onnx file.
    """
    from compress.report.inspection import inspect_model, inspection_table

    if kind_of(model) is not None:
        from compress.api.kinds import special

        opened: Any = special(model).opened(Path(model))
    else:
        from compress.checkpoint.open import open_to_inspect

        opened = open_to_inspect(model, **asdict(opening))
    found = inspect_model(opened, model)
    console.result(inspection_table(found), asdict(found))


@app.command
def report(folder: Path, /, *, talk: Talk = Talk()) -> None:
    """Show the report of an output folder again; nothing is measured.

    Parameters
    ----------
    folder
        A folder that this program wrote.
    """
    from compress.report.inspection import read_report

    console.result(*read_report(folder))


if TYPE_CHECKING:
    What = str
else:
    What = Literal[(*registries(), "recipes", "schema")]


@app.command
def ls(
    what: What | None = None,
    /,
    *,
    talk: Talk = Talk(),
) -> None:
    """List the registered parts of a kind, the recipes that ship, or the JSON schema of a recipe.

    Parameters
    ----------
    what
        One list; all of them without.
    """
    from compress.report.listing import listing

    console.result(*listing(what))
