"""The report's plots as inline SVG: text stays text and takes the page's font and colour."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from compress.report.document import Report

WIDTH = 9
"""Of a figure, in inches."""

INK = "#010203"  # replaced by the page's own text colour, so that plots follow a dark page
TRACK = "#8a94a622"
COLOURS = {"heads": "#3b6fd4", "queries": "#5b8def", "head_dim": "#7a5cc9", "channels": "#1f9e89"}
OTHER = "#c2702f"
DENSE = "#8a94a6"
LABELS = {
    "heads": "Attention heads",
    "queries": "Query heads",
    "head_dim": "Head width",
    "channels": "MLP channels",
    "hidden": "Hidden width",
    "experts": "Experts",
    "layers": "Layers",
}
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.spines.bottom": False,
    "axes.axisbelow": True,
}


def cut_kinds(report: Report) -> list[str]:
    """Kinds of families that lost something, in a fixed order."""
    cut = {family["kind"] for family in report["families"] if family["kept"] < family["size"]}
    return sorted(cut, key=lambda kind: (list(LABELS).index(kind) if kind in LABELS else len(LABELS), kind))


def kept(report: Report) -> Figure:
    """Kept share by layer, one panel for each kind that lost something."""
    kinds = cut_kinds(report)
    with rc_context(STYLE):
        figure, panels = _panels(len(kinds), 1.75)
        for axes, kind in zip(panels, kinds, strict=True):
            bars = _layers_gone(report) if kind == "layers" else _by_layer(report, kind)
            _panel(axes, kind, bars)
    return figure


def shares(report: Report) -> Figure:
    """What is left of parameters, FLOPs, bytes, what visual tokens cost and latency, as a share of the original."""
    before, after = report["before"], report["after"]
    left = {
        name: after[key] / before[key]
        for name, key in (("Parameters", "params"), ("FLOPs", "flops"), ("Bytes", "bytes"))
    }
    if visual := report.get("visual_tokens"):
        left |= {name: visual[key][1] / visual[key][0] for name, key in (("Prefill", "flops"), ("Cache", "cache"))}
    if (one := before.get("latency")) and (other := after.get("latency")):
        left["Latency"] = other["seconds"] / one["seconds"]
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.42 * len(left) + 0.5))
        axes = figure.subplots(gridspec_kw=_inside(figure, left=0.95, bottom=0.32, top=0.06))
        axes.barh(list(left), [1] * len(left), color=TRACK, height=0.62)
        axes.barh(list(left), list(left.values()), color=COLOURS["heads"], height=0.62)
        for place, share in enumerate(left.values()):
            axes.text(max(share, 1) + 0.012, place, f"{100 * share:.1f} %", va="center", weight="bold")
        axes.invert_yaxis()
        axes.set_xlim(0, max(1.1, max(left.values()) + 0.12))
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
        axes.tick_params(length=0)
    return figure


def saliency(report: Report) -> Figure | None:
    """Share of the saliency that each layer kept, a panel for each step and kind; None where none is by layer."""
    panels: dict[tuple[int, str], list[tuple[int, float]]] = {}
    for row in report.get("saliency", []):
        if row["layer"] is not None:
            panels.setdefault((row["step"], row["kind"]), []).append((row["layer"], row["kept"]))
    if not panels:
        return None
    several = len({step for step, _ in panels}) > 1
    with rc_context(STYLE):
        figure, places = _panels(len(panels), 1.6)
        for axes, ((step, kind), points) in zip(places, panels.items(), strict=True):
            layers, kept = zip(*sorted(points), strict=True)
            axes.plot(layers, kept, color=COLOURS.get(kind, OTHER), marker="o", markersize=4)
            title = LABELS.get(kind, kind) + (f", step {step}" if several else "")
            axes.set_title(title, loc="left", size=11, weight="bold")
            axes.set_ylim(0, 1.05)
            axes.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"])
            axes.set_xticks(layers[:: -(-len(layers) // 40)])
            axes.grid(axis="y", color=TRACK)
            axes.tick_params(length=0)
            axes.set_xlabel("layer", size=9, loc="right", labelpad=-2)
    return figure


def positions(report: Report) -> Figure | None:
    """Mean loss of a token by its position, of both models; None where the report has none."""
    before, after = (report[side].get("perplexity", {}).get("by_position") for side in ("before", "after"))
    if not (before and after):
        return None
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.4))
        axes = figure.subplots(gridspec_kw=_inside(figure, left=0.75, bottom=0.55, top=0.08, right=0.6))
        for name, stretches, colour in (("before", before, DENSE), ("after", after, COLOURS["heads"])):
            firsts, losses = zip(*stretches, strict=True)
            axes.plot(firsts, losses, color=colour, marker="o", markersize=4)
            axes.annotate(name, (firsts[-1], losses[-1]), (8, 0), textcoords="offset points", va="center", color=colour)
        axes.set_xscale("log", base=2)
        axes.set_xticks([first for first, _ in before], [str(first) for first, _ in before])
        axes.set_ylim(bottom=0)
        axes.set_ylabel("nats a token")
        axes.set_xlabel("tokens into the sequence, each mark up to the next", size=9, loc="right")
        axes.tick_params(length=0)
        axes.minorticks_off()
    return figure


def svg(figure: Figure, salt: str) -> str:
    """The figure as an `<svg>` element; the same figure gives the same text, ids do not clash between two salts."""
    file = io.StringIO()
    with rc_context({**STYLE, "svg.hashsalt": salt}):
        for one in (figure, *figure.axes):
            one.patch.set_facecolor("none")
        # `savefig` draws it once more before, to no purpose where nothing is fitted.
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return re.sub(r'id="((?:figure|axes|patch|text|matplotlib|xtick|ytick|line2d)[\w.]*)"', rf'id="{salt}-\1"', text)


def _panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with so many axes one below the other, for a title and a label each; `height` of one in inches."""
    above, below = 0.32, 0.42
    figure = Figure(figsize=(WIDTH, height * count + 0.35))
    own = figure.get_figheight() / count - above - below
    inside = _inside(figure, left=0.55, bottom=below, top=above)
    return figure, list(
        figure.subplots(count, squeeze=False, gridspec_kw={**inside, "hspace": (above + below) / own})[:, 0]
    )


def _inside(figure: Figure, left: float, bottom: float, top: float, right: float = 0.06) -> dict[str, float]:
    """Where axes lie that leave so many inches free for their texts; finding out how many takes as long as drawing."""
    width, height = figure.get_size_inches()
    return {"left": left / width, "right": 1 - right / width, "bottom": bottom / height, "top": 1 - top / height}


def _panel(axes: Axes, kind: str, bars: list[tuple[str, int, int]]) -> None:
    """One kind: a bar for each layer on a pale track of the full height; the numbers where there is room for them."""
    places, left = range(len(bars)), [kept / size for _, size, kept in bars]
    axes.bar(places, [1] * len(bars), color=TRACK, width=0.82)
    axes.bar(places, left, color=COLOURS.get(kind, OTHER), width=0.82)
    if len(bars) <= 14:
        for place, (_, size, kept) in enumerate(bars):
            share = kept / size
            text = f"{kept}/{size}" if size > 1 else ("kept" if kept else "gone")
            inside = share > 0.25
            side: dict[str, Any] = {"va": "top", "color": "white"} if inside else {"va": "bottom", "color": INK}
            axes.text(place, share + (-0.06 if inside else 0.06), text, ha="center", size=9, **side)
    axes.set_title(LABELS.get(kind, kind), loc="left", size=11, weight="bold")
    axes.set_ylim(0, 1.02)
    axes.set_xlim(-0.6, max(len(bars), 4) - 0.4)
    axes.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    step = -(-len(bars) // 40)
    axes.set_xticks(list(places)[::step], [label for label, _, _ in bars][::step])
    axes.tick_params(length=0)
    axes.set_xlabel("layer", size=9, loc="right", labelpad=-2)


def _by_layer(report: Report, kind: str) -> list[tuple[str, int, int]]:
    """(label, size, kept) by layer; families of one layer are added up, those of none stand under "all"."""
    sums: dict[int | None, list[int]] = {}
    for family in report["families"]:
        if family["kind"] == kind:
            total = sums.setdefault(family["layer"], [0, 0])
            total[0] += family["size"]
            total[1] += family["kept"]
    order = sorted(sums, key=lambda layer: (layer is None, layer or 0))
    return [("all" if layer is None else str(layer), *sums[layer]) for layer in order]  # pyright: ignore[reportReturnType]


def _layers_gone(report: Report) -> list[tuple[str, int, int]]:
    """A full bar for each layer that stays, an empty one for each that went; one bar for all where that is unknown."""
    bars = []
    for family in report["families"]:
        if family["kind"] == "layers":
            gone = family.get("removed")
            if gone is None:
                bars.append(("all", family["size"], family["kept"]))
            else:
                bars += [(str(i), 1, int(i not in gone)) for i in range(family["size"])]
    return bars
