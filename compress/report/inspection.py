"""Tables of what a model consists of, what a plan decides, and what a report says."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.checkpoint.open import Checkpoint
from compress.errors import InputError
from compress.files.ordinary import check_ordinary
from compress.model.model import Model
from compress.registry import steps
from compress.report import table
from compress.report.rows import count, percent

if TYPE_CHECKING:
    from rich.table import Table

    from compress.execution.document import Plan
    from compress.graph.families import Family, Graph


CONFIG_ONLY = "from config.json alone; no weights were looked at"


@dataclass(frozen=True)
class InspectedFamily:
    """One family: `count` groups of a `kind` (heads, channels, experts, layers, hidden, …), each of which goes as a
    whole or stays, in the block number `layer` (None where it is in several).

    `members` are the slices that go together, `tensor[dimension]`, or the blocks. `parameters` and `flops_share` (of
    the whole model's) are what goes when the whole family goes. `pinned` says why none can go, None where they can.
    """

    name: str
    kind: str
    layer: int | None
    count: int
    members: list[str]
    parameters: int
    flops_share: float
    pinned: str | None


@dataclass(frozen=True)
class Inspection:
    """What of the model named `model` can be pruned. `architecture` is its class, `flops` those of 512 tokens, `blocks`
    how many it has; `notes` say what could not be traced. `config_only`: no weights were there to be looked at."""

    model: str
    architecture: str
    parameters: int
    flops: int
    blocks: int
    families: list[InspectedFamily]
    notes: list[str]
    config_only: bool = False


def inspect_model(checkpoint: Checkpoint, name: str) -> Inspection:
    """The families of a model, which is called `name`. Raises ModelError when it is not understood."""
    source = Model.of(checkpoint)
    graph = source.graph
    whole = {"params": graph.parameters(), "flops": graph.flops()}
    alone = checkpoint.config_only
    notes = [*([CONFIG_ONLY] if alone else []), *graph.notes]
    rows = [_row(graph, family, whole) for family in graph.families.values()]
    blocks = len(graph.blocks)
    return Inspection(name, source.cls.__name__, whole["params"], whole["flops"], blocks, rows, notes, alone)


def _row(graph: Graph, family: Family, whole: dict[str, int]) -> InspectedFamily:
    empty = {family.name: np.zeros(family.size, bool)}
    return InspectedFamily(
        name=family.name,
        kind=family.kind,
        layer=family.layer,
        count=family.size,
        members=[f"{member.tensor}[{member.dim}]" for member in family.members] or list(family.blocks),
        parameters=whole["params"] - graph.parameters(empty),
        flops_share=1 - graph.flops(empty) / max(whole["flops"], 1),
        pinned=family.pinned,
    )


def inspection_table(found: Inspection) -> Table:
    """The families as a table, where those alike are one line."""
    title = f"{found.architecture}: {count(found.parameters)} parameters, {count(found.flops)} FLOPs for 512 tokens"
    return _families_table(title, found.families, found.notes)


def _families_table(title: str, rows: Iterable[InspectedFamily], notes: Iterable[str]) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    drawn = Table(box=box.SIMPLE_HEAD, title=escape(title), caption=escape("\n".join(notes)) or None, pad_edge=False)
    for name in ("unit", "families", "groups", "members", "parameters", "FLOPs"):
        drawn.add_column(name, justify="left" if name == "unit" else "right")
    drawn.add_column("pinned, and why", overflow="fold")
    alike: dict[tuple[str, int, int, str | None], list[InspectedFamily]] = {}
    for row in rows:
        last = row.name.rpartition(".")[2] if row.kind == "head_dim" else row.kind
        alike.setdefault((last, row.count, len(row.members), row.pinned), []).append(row)
    for (unit, size, members, pinned), same in alike.items():
        drawn.add_row(
            unit,
            str(len(same)),
            str(size),
            str(members),
            count(sum(row.parameters for row in same)),
            f"{100 * sum(row.flops_share for row in same):.1f} %",
            escape(pinned or ""),
        )
    return drawn


def plan_table(plan: Plan) -> Table:
    """What a plan leaves of every kind, what that saves, and who can open it."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    opens = plan.steps[-1].opens_with
    notes = [*([CONFIG_ONLY] if plan.config_only else []), f"opens with {opens['who']}", *plan.notes]
    drawn = Table(box=box.SIMPLE_HEAD, title=escape(plan.model), caption=escape("\n".join(notes)), pad_edge=False)
    drawn.add_column("")
    for name in ("before", "after", "change"):
        drawn.add_column(name, justify="right", no_wrap=True)
    for name, label in (("params", "Parameters"), ("flops", "FLOPs"), ("bytes", "Bytes")):
        before, after = plan.before[name], plan.after[name]
        drawn.add_row(label, count(before), count(after), percent(before, after))
    for number, step in enumerate(plan.steps, 1):
        kind: Any = steps.get(step.kind).target
        for label, value in kind.rows(step.decision).items():
            drawn.add_row(f"step {number}: {label}", "", value, "")
    return drawn


def read_report(folder: Path) -> tuple[Table, dict[str, Any]]:
    """The table and the content of a folder's report.json. Raises InputError when there is none."""
    file = folder / "report.json"
    check_ordinary(file)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return table(found), found
    except FileNotFoundError:
        raise InputError(f"{file}: not there; the folder was not written by compress") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: not a report ({error})") from None
