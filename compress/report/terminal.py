"""The report for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.report.rows import rows

if TYPE_CHECKING:
    from rich.table import Table

    from compress.report.document import Report


def table(report: Report) -> Table:
    """Before and after, one line a figure; green where the change is for the good."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    about = report["recipe"]["about"]
    drawn = Table(box=box.SIMPLE_HEAD, title=escape(report["model"]), caption=escape(about) or None, pad_edge=False)
    drawn.add_column("")
    for name in ("before", "after", "change"):
        drawn.add_column(name, justify="right", no_wrap=True)
    for row in rows(report):
        style = "" if row.better is None else "green" if row.better else "yellow"
        drawn.add_row(row.label, row.before, row.after, f"[{style}]{row.change}[/]" if style else row.change)
    return drawn
