"""Quality against cost, one panel for each cost, the Pareto front drawn through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from compress.comparison.front import COSTS
from compress.report.plots import COLOURS, INK, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

APART = 5
"""Perplexities that differ by more than this factor are drawn by their logarithms."""

FRONT, OTHER, DENSE = COLOURS["heads"], "#8a94a6", "#c2702f"


def pareto(found: Mapping[str, Any]) -> Figure | None:
    """A point for each row, with its number in the table; None where no quality was measured."""
    rows = [(number, row) for number, row in enumerate(found["rows"], 1) if row.get("quality")]
    costs = [cost for cost in COSTS if cost in found["front"]]
    if not rows or not costs:
        return None
    with rc_context(STYLE):
        figure = Figure(figsize=(3.6 * len(costs) + 0.6, 3.9), layout="constrained")
        panels = figure.subplots(1, len(costs), squeeze=False, sharey=True)[0]
        for axes, cost in zip(panels, costs, strict=True):
            _panel(axes, found, rows, cost)
        panels[0].set_ylabel(rows[0][1]["quality"]["name"])
        if not rows[0][1]["quality"]["higher_is_better"]:
            values = [row["quality"]["value"] for _, row in rows]
            if max(values) > APART * min(values):  # one that broke the model would press all others together
                panels[0].set_yscale("log")
                panels[0].minorticks_off()
                panels[0].yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            panels[0].invert_yaxis()  # up is better in every plot
    return figure


def _panel(axes: Axes, found: Mapping[str, Any], rows: list[tuple[int, dict[str, Any]]], cost: str) -> None:
    whole = found["dense"][cost]
    front = [row for name in found["front"][cost] for _, row in rows if row["name"] == name]
    places = [(row[cost] / whole, row["quality"]["value"]) for row in front]
    axes.plot(*zip(*places, strict=True), color=FRONT, linewidth=1.2, alpha=0.6, zorder=1)
    for number, row in rows:
        if row.get(cost) is None:
            continue
        x, y, best = row[cost] / whole, row["quality"]["value"], row in front
        axes.scatter([x], [y], s=150, color=FRONT if best else OTHER, zorder=4 if best else 2)
        axes.text(
            x, y, str(number), ha="center", va="center", color="white", size=7.5, weight="bold", zorder=5 if best else 3
        )
    axes.scatter([1], [found["dense"]["quality"]["value"]], marker="*", s=150, color=DENSE, zorder=2)
    axes.annotate("dense", (1, found["dense"]["quality"]["value"]), (0, 9), textcoords="offset points", ha="center")
    axes.set_title(f"{COSTS[cost]}, share of the dense model's", loc="left", size=10, weight="bold", color=INK)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    axes.grid(color=OTHER, alpha=0.2, linewidth=0.7)
    axes.tick_params(length=0)
    axes.margins(0.12)
