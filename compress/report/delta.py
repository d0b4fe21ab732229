"""What `prune: delta` and `compress apply-delta` say, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from compress.console import human_bytes
from compress.report.rows import count

if TYPE_CHECKING:
    from rich.table import Table


def delta_table(summary: Mapping[str, Any]) -> Table:
    """One line a figure, from a delta's description without its tensors."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    found, method, tuned = summary["found"], summary["method"], summary["tuned"]
    title = escape(f"{tuned['name']} less {summary['base']['name']}")
    drawn = Table(box=box.SIMPLE_HEAD, title=title, pad_edge=False, show_header=False)
    drawn.add_column("")
    drawn.add_column("", justify="right", no_wrap=True)
    share = found["bytes"] / tuned["bytes"]
    drawn.add_row("Fine-tuned model on disk", human_bytes(tuned["bytes"]))
    drawn.add_row("Pruned delta on disk", f"{human_bytes(found['bytes'])} ({share:.1%})")
    drawn.add_row("Entries of the delta that may go", count(found["pruned"]))
    drawn.add_row("of them kept", f"{count(found['kept'])} ({found['kept'] / found['pruned']:.2%})")
    q = f"{found['q']:.4g}" + (" on the mean" if method.get("q") in ("rows", "layers") else "")
    drawn.add_row(f"Divided by ({method['by']})", q)
    if outputs := found["outputs"]:
        names = {
            "base": "of the base alone",
            "dare": "divided by 1 − p, as DARE does",
            "pruned": "of base + pruned delta",
        }
        drawn.add_row(f"Outputs' difference to the fine-tuned model's ({outputs['measure']})", "")
        for key, name in names.items():
            if key in outputs:
                drawn.add_row(f"  {name}", f"{outputs[key]:.4g}")
    return drawn
