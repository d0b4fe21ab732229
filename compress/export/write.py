"""Every export that a recipe names, written into a folder of its own beside the weights."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from compress.checkpoint.open import Checkpoint
from compress.checkpoint.ours import mark
from compress.console import working
from compress.evaluate.budget import Budget
from compress.export.format import Format, Written
from compress.model.model import Model
from compress.registry import formats


def write_export(name: str, checkpoint: Checkpoint, folder: Path, settings: BaseModel) -> Written:
    """The model in the format `name`, into `folder`, which exists. Raises what `Format.write` does."""
    with working(f"exporting to {name}"):
        return _format(name).write(checkpoint, folder, settings)


def write_exports(
    wanted: Mapping[str, BaseModel],
    checkpoint: Checkpoint,
    out: Path,
    dense: Model | None = None,
    seconds: float | None = None,
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The model in every format that is `wanted` (name → settings), each in `out`/name.

    With `dense`, their speed beside the dense model's is measured, in about so many `seconds` (None: without end), as
    far as a format does that. Returns what report.json says of each, and notes on what was not measured.
    """
    found: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    budget = Budget(seconds)
    for name, settings in wanted.items():
        place = out / name
        place.mkdir()
        start = time.perf_counter()
        made = write_export(name, checkpoint, place, settings)
        took = time.perf_counter() - start
        mark(place)  # `compress export` may write it anew
        found[name] = {"result": made.data, "lines": [list(line) for line in made.lines], "about": made.about}
        if dense is not None and (speed := _format(name).compare(dense, place, settings, budget, took)) is not None:
            found[name] |= {"speed": speed.data, "timings": [asdict(timing) for timing in speed.timings]}
            notes += speed.notes
    return found, notes


def _format(name: str) -> Format:
    return formats.get(name).target()
