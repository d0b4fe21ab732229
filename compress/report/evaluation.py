"""The table of what `compress eval` measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from compress.console import human_bytes
from compress.metrics.kind import Scale
from compress.report.rows import count, flops_label, inverse, label, percent, shown, written

if TYPE_CHECKING:
    from rich.table import Table

Line = tuple[str, float, str, str | None]
"""What, its figure, the figure as text, and the name of its change where that may be noise."""

RATES = ("decode", "throughput", "onnx_decode")
"""Shown as tokens a second, while their change is of the time."""


def evaluation_table(found: dict[str, Any]) -> Table:
    """One column for the model, and before it one for the dense model where there is one."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    own, dense = list(lines(found)), dict[str, Line]()
    drawn = Table(box=box.SIMPLE_HEAD, title=escape(f"{found['model']} ({found['architecture']})"), pad_edge=False)
    caption = [f"Quality on {found['text']}; ranges are about 95 % of what chance does"] if found["text"] else []
    drawn.caption = escape("\n".join([*caption, *found["notes"]])) or None
    drawn.add_column("")
    if "against" in found:
        dense = {line[0]: line for line in lines(found["against"])}
        drawn.add_column("dense", justify="right", no_wrap=True)
    drawn.add_column("", justify="right", no_wrap=True)
    if dense:
        drawn.add_column("change", justify="right", no_wrap=True)
    for title, value, text, name in own:
        other = dense.get(title)
        beside = [other[2] if other else ""] if dense else []
        change = [_change(found, name, other[1] if other else None, value)] if dense else []
        drawn.add_row(escape(title), *beside, text, *change)
    return drawn


def _change(found: dict[str, Any], name: str | None, before: float | None, after: float) -> str:
    """With its range where chance plays a part; a time or quality that has none is not compared."""
    if name is not None:
        change = found["changes"].get(name)
        return shown(inverse(change) if name in RATES else change) if change is not None else ""
    return percent(before, after) if before is not None else ""


def lines(found: dict[str, Any]) -> Iterator[Line]:
    """Every figure of one model."""
    yield "Parameters", found["parameters"], count(found["parameters"]), None
    if "flops" in found:
        yield flops_label(found.get("flops_length")), found["flops"], count(found["flops"]), None
    yield "Weights on disk", found["bytes"], human_bytes(found["bytes"]), None
    if "peak_memory" in found:
        yield "Peak memory of the process", found["peak_memory"], human_bytes(found["peak_memory"]), None
    for one in found.get("quality", ()):
        change = found.get("changes", {}).get(one["name"])
        margin = ""
        if one["scale"] == Scale.SIMILARITY and change is not None:
            margin = f" ± {(change['high'] - change['low']) / 2:.4f}"
        yield label(one), one["value"], written(one["value"], one["scale"]) + margin, one["name"]
    for score in found.get("tasks", ()):
        error = f" ± {score['error']:.4f}" if score["error"] is not None else ""
        title = f"{score['task']}, {score['metric']} of {score['samples']}"
        yield title, score["value"], f"{score['value']:.4f}{error}", None
    yield from _speed(found.get("speed") or {})
    yield from _speed(found.get("onnx") or {}, "ONNX Runtime: ", "onnx_")


def _speed(found: dict[str, Any], where: str = "", name: str = "") -> Iterator[Line]:
    if not found:
        return
    prefill = found["prefill"]
    title = f"{where}{'Forward of' if found['decode'] is None else 'Prefill,'} {prefill['length']} {prefill['noun']}"
    yield title, prefill["seconds"], f"{1000 * prefill['seconds']:.1f} ms", f"{name}prefill"
    if found["decode"] is not None:
        title = f"{where}Decode, one sequence"
        yield title, found["decode"], f"{found['decode']:.0f} tokens/s", f"{name}decode"
    if "throughput" in found:
        title = f"Throughput, {found['rows']} sequences"
        yield title, found["throughput"], f"{found['throughput']:.0f} {prefill['noun']}/s", "throughput"
