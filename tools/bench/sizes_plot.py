"""The plot of tools/bench/sizes.py: what a model loses by how small it gets, the best of each house as a line."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES = {
    "compress auto": ("auto", "#1f6fd1", 2.6),
    "measured-20, widths by layer": ("measured-20", "#12305c", 1.8),
    "channels-20": ("channels-20", "#5b8def", 1.4),
    "FLAP": ("flap-20", "#c2702f", 1.6),
    "LLM-Pruner": ("llm-pruner-20", "#7a5cc9", 1.6),
    "ShortGPT": ("layers-25", "#8f6b1f", 1.6),
    "SliceGPT": ("SliceGPT", "#1f9e89", 1.6),
    "Torch-Pruning": ("Torch-Pruning*", "#c43d5c", 1.6),
}
"""Label → the methods whose best it shows, colour, width."""

TICKS = (1, 1.2, 1.5, 2, 3, 5, 10, 20, 50, 100)
OTHERS, INK, MOST = "#c9d0da", "#333a45", 130.0


def draw(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Write the plot of `rows`: `method`, `share`, and where it was measured `ratio`."""
    measured = [row for row in rows if "ratio" in row]
    figure = Figure(figsize=(8.6, 4.8), layout="constrained", dpi=150)
    axes = figure.subplots()
    _others(axes, measured)
    for label, (pattern, colour, width) in LINES.items():
        points = best([row for row in measured if fnmatch(row["method"], pattern)])
        shown = [(share, value) for share, value in points if value <= MOST]
        if not shown:
            continue
        x, y = zip(*shown, strict=True)
        axes.plot(x, y, color=colour, linewidth=width, marker="o", markersize=4, label=label, zorder=width)
    axes.set_yscale("log")
    axes.set_ylim(1, MOST)
    axes.set_yticks(TICKS, [f"{tick:g} ×" for tick in TICKS])
    axes.set_xticks([0.1, 0.2, 0.3, 0.5], ["10 %", "20 %", "30 %", "50 %"])
    axes.set_xlabel("of the blocks' parameters gone", color=INK)
    axes.set_title("SmolLM2-135M: × the dense model's perplexity, nothing trained", loc="left", size=11, color=INK)
    axes.minorticks_off()
    axes.grid(axis="y", color=OTHERS, alpha=0.5, linewidth=0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0, colors=INK)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    figure.savefig(file)


def best(rows: Sequence[dict[str, Any]]) -> list[tuple[float, float]]:
    """The least ratio at every share."""
    shares = sorted({row["share"] for row in rows})
    return [(share, min(row["ratio"] for row in rows if row["share"] == share)) for share in shares]


def _others(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """Every other method as a grey line."""
    patterns = [pattern for pattern, _, _ in LINES.values()]
    for method in dict.fromkeys(row["method"] for row in rows):
        if any(fnmatch(method, pattern) for pattern in patterns):
            continue
        points = [(row["share"], row["ratio"]) for row in rows if row["method"] == method and row["ratio"] <= MOST]
        if points:
            axes.plot(*zip(*sorted(points), strict=True), color=OTHERS, linewidth=1, zorder=1)
