"""The table of what became of a pipeline's components."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from compress.components.cliff import PARTS
from compress.components.rows import Row


def components_table(rows: Sequence[Row]) -> Table:
    """A line for each component."""
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("component", "weights before", "after", "of what was asked", "damage"):
        drawn.add_column(title, justify="left" if title == "component" else "right")
    for row in rows:
        gone = 1 - row.after / row.before
        seen = row.damage[: round(row.part * PARTS)]
        damage = f"{seen[-1]:.1%}" if seen else ""
        after = f"{row.after:,} (−{gone:.1%})"
        drawn.add_row(escape(row.component), f"{row.before:,}", after, f"{row.part:.0%}", damage)
    return drawn
