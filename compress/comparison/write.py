"""A comparison for people: the table on the terminal, compare.html, compare.json and compare.png."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from compress.checkpoint.ours import mark
from compress.comparison.front import COSTS, prune_tokens
from compress.report.rows import count, flops_label, written
from compress.report.templates import templates

if TYPE_CHECKING:
    from rich.table import Table


COLUMNS = {
    "params": "Params",
    "kept": "Tokens",
    "flops": "FLOPs",
    "prefill": "Prefill",
    "cache": "Cache",
    "latency": "Latency",
}
"""What a comparison may have a column of, and its head."""

PAGES = ("compare.json", "compare.html", "compare.png")


class Line(NamedTuple):
    """One row as text; `costs` are those of `columns`, `front` names the costs on whose Pareto front it is, `error` why
    it is empty."""

    number: str
    name: str
    costs: list[str]
    quality: str
    seconds: str
    front: str
    error: str = ""


def columns(found: Mapping[str, Any]) -> list[str]:
    """The costs that have a column: those of weights, of visual tokens where all recipes prune these, and of both where
    some do."""
    if prune_tokens(found["rows"]):
        return ["kept", "prefill", "cache", "latency"]
    some = any("kept" in row for row in found["rows"])
    return ["params", *(["kept"] if some else []), "flops", "latency"]


def lines(found: Mapping[str, Any]) -> list[Line]:
    """The dense model first, then every recipe in the order given."""
    dense, costs = found["dense"], columns(found)
    same = {one["name"] for one in found["ranking"] if not one.get("measurable", True)}
    whole = [count(dense["params"]) if cost == "params" else _cost(dense, dense, cost) for cost in costs]
    made = [Line("★", "dense", whole, _quality(dense, same), "", "")]
    for number, row in enumerate(found["rows"], 1):
        if "error" in row:
            made.append(Line(str(number), row["name"], [""] * len(costs), "", "", "", row["error"]))
            continue
        made.append(
            Line(
                str(number),
                row["name"],
                [_cost(row, dense, cost) for cost in costs],
                _quality(row, same),
                f"{row['seconds']:.1f} s",
                ", ".join(COSTS[cost].lower() for cost, names in found["front"].items() if row["name"] in names),
            )
        )
    return made


def captions(found: Mapping[str, Any]) -> list[str]:
    """What the reader of the table has to know: how it was measured, and why rows may not compare."""
    costs = columns(found)
    said = [f"{flops_label(found['flops_length'])}, as a share of the dense model's"] if "flops" in costs else []
    if "kept" in costs:
        said.append("Tokens: visual ones that the decoder's layers read, in the mean over layers")
    if "prefill" in costs:
        said.append("Prefill, cache: the decoder's FLOPs for a prompt with a picture, and its key/value cache")
    if "latency" in found["dense"]:
        first = " to the first token" if "prefill" in costs else ""
        said.append(f"Latency{first}: share of the dense model's, taken in turns with it; (=) no difference measurable")
    if found["text"]:
        said.append(f"Quality on {found['text']}, ± 2 standard errors of the difference to the dense model")
    if any(not one.get("measurable", True) for one in found["ranking"]):
        said.append("≈ cannot be told apart from the next better recipe")
    return [*said, *(f"Warning: {text}" for text in found["warnings"])]


def heads(found: Mapping[str, Any]) -> list[str]:
    """The columns' titles."""
    qualities = [row["quality"]["name"] for row in [found["dense"], *found["rows"]] if row.get("quality")]
    quality = qualities[0] if qualities else "Quality"
    return ["", "Recipe", *(COLUMNS[cost] for cost in columns(found)), quality, "Work", "Front of"]


def comparison_table(found: Mapping[str, Any]) -> Table:
    """For the terminal, narrow enough for 80 columns: fronts by their initials."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    drawn = Table(box=box.SIMPLE_HEAD, title=escape(found["model"]), padding=(0, 1, 0, 0), pad_edge=False)
    for head in heads(found):
        left = head in ("", "Recipe")
        room = 19 if len(columns(found)) < 4 else 14
        width = room if head == "Recipe" else None  # longer names are folded, other columns stay whole
        drawn.add_column(head.partition(" of")[0], justify="left" if left else "right", overflow="fold", width=width)
    for line in lines(found):
        named, initials = line[:2], "".join(cost[0].upper() for cost in line.front.split(", ") if cost)
        cells = ["failed"] if line.error else [*line.costs, line.quality, line.seconds, initials]
        drawn.add_row(*map(escape, [*named, *cells]))
    failed = [f"{line.number} {line.name}: {line.error}" for line in lines(found) if line.error]
    letters = ", ".join(f"{COSTS[cost][0]} {COSTS[cost]}" for cost in found["front"])
    legend = [f"Front: beaten by none in quality and {letters}"] if letters else []
    drawn.caption = escape("\n".join([*legend, *captions(found), *failed]))
    drawn.caption_justify = "left"
    return drawn


def write_comparison(folder: Path, found: Mapping[str, Any]) -> Path:
    """Write the three files into `folder`; returns the path of compare.html, which is one file and fetches nothing.

    compare.png is not written where no quality was measured. Each file appears whole, compare.json last.
    """
    from compress.comparison.plot import pareto
    from compress.report.plots import svg

    folder.mkdir(parents=True, exist_ok=True)
    mark(folder)
    text = json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False)
    figure = pareto(found)
    if figure is not None:
        drawn = BytesIO()
        figure.savefig(drawn, format="png", dpi=160, facecolor="white")
        _put(folder / "compare.png", drawn.getvalue())
    jinja = templates("compress.comparison")
    plot = svg(figure, "pareto") if figure is not None else None
    made = jinja.get_template("compare.html.jinja").render(
        found=found, heads=heads(found), lines=lines(found), captions=captions(found), plot=plot
    )
    _put(folder / "compare.html", made.encode())
    _put(folder / "compare.json", f"{text}\n".encode())
    return folder / "compare.html"


def remove_pages(folder: Path) -> None:
    """Take away an earlier comparison's files, which are no longer true once a result of it is replaced."""
    for name in PAGES:
        (folder / name).unlink(missing_ok=True)


def _put(file: Path, content: bytes) -> None:
    partial = file.with_name(f".{file.name}.partial")
    partial.write_bytes(content)
    partial.replace(file)


def _cost(row: Mapping[str, Any], dense: Mapping[str, Any], cost: str) -> str:
    """As a share of the dense model's."""
    if cost == "latency":
        return _latency(row)
    if row.get(cost) is None:
        return "–"
    share = row[cost] / dense[cost]
    return "100 %" if row is dense else f"{100 * share:.1f} %"


def _latency(row: Mapping[str, Any]) -> str:
    if row.get("latency") is None:
        return "–"
    if "latency_range" not in row:  # the dense model's own
        return "100 %"
    low, high = row["latency_range"]
    return "(=)" if low <= 1 <= high else f"{100 * row['latency']:.0f}±{50 * (high - low):.0f} %"


def _quality(row: dict[str, Any], same: set[str]) -> str:
    quality = row.get("quality")
    if not quality:
        return "–"
    change, margin = quality.get("change"), None
    if row["name"] != "dense" and change is not None:
        margin = quality["value"] / change["value"] * (change["high"] - change["low"]) / 2
    mark = "≈ " if row["name"] in same else ""
    return mark + written(quality["value"], quality["scale"], margin)
