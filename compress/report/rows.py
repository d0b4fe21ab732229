"""The before/after table, once for the terminal, the page and the model card."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from compress.console import human_bytes

if TYPE_CHECKING:
    from compress.report.report import Report


LIKENESS = {"cosine": "Embedding cosine to the dense model", "ranks": "Rank correlation of text pairs"}
NO_DIFFERENCE = "no difference measurable"


class Row(NamedTuple):
    """One line as text; `better` says whether the change is for the good, None where it cannot be said.

    `lasting` is false of what says something of the machine that it was measured on and nothing of the model: a time
    that differs by no more than chance. A model card leaves it out.
    """

    label: str
    before: str
    after: str
    change: str
    better: bool | None
    lasting: bool = True


def rows(report: Report) -> list[Row]:
    """The lines that both sides, or for the similarity the pruned side, have figures for."""
    before, after = report["before"], report["after"]
    length = before.get("flops_length", 512)
    found = [
        _line("Parameters", before["params"], after["params"], count),
        _line(f"FLOPs of {length} tokens", before["flops"], after["flops"], count),
        _line("Weights on disk", before["bytes"], after["bytes"], human_bytes),
    ]
    if zeros := after.get("zeros"):
        found.insert(1, Row("Zero weights", "0", count(zeros), f"{zeros / after['params']:.1%}", None))
    return [*found, *_times(report), *_quality(report)]


def _times(report: Report) -> Iterator[Row]:
    before, after = report["before"], report["after"]
    if (one := before.get("latency")) and (other := after.get("latency")):
        change = report.get("changes", {})["latency"]
        yield _time(f"Latency, {_shape(one)}", one["seconds"], other["seconds"], change)
    for export in report.get("exports", {}).values():
        for timing in export.get("timings", ()):
            yield _time(**timing)


def _time(label: str, before: float, after: float, change: Mapping[str, Any]) -> Row:
    better = change["value"] < 1 if change["measurable"] else None
    return Row(label, _milliseconds(before), _milliseconds(after), shown(change), better, change["measurable"])


def _quality(report: Report) -> Iterator[Row]:
    before, after, changes = report["before"], report["after"], report.get("changes", {})
    if (one := before.get("perplexity")) and (other := after.get("perplexity")):
        change = changes["perplexity"]
        better = change["value"] < 1 if change["measurable"] else None
        label = f"Perplexity, {one['samples']} × {one['length']} tokens"
        yield Row(label, _figure(one["value"]), _figure(other["value"]), shown(change), better)
    alike = after.get("similarity") or {}
    for name, label in LIKENESS.items():
        if alike.get(name) is not None:
            change = f"{alike[name] - 1:+.4f}".replace("-", "−")
            if known := changes.get(name):  # two texts have a correlation, but no error of it
                margin = (known["high"] - known["low"]) / 2
                change = f"{change} ± {margin:.4f}" if known["measurable"] else NO_DIFFERENCE
            yield Row(f"{label}, {alike['samples']} texts", "1", f"{alike[name]:.4f}", change, None)


def shown(change: Mapping[str, Any]) -> str:
    """A `compress.evaluate.change.Change` of a cost as `+24.4 % (+23.1 to +25.7)`."""
    if not change["measurable"]:
        return NO_DIFFERENCE
    low, high = (f"{100 * (change[end] - 1):+.1f}".replace("-", "−") for end in ("low", "high"))
    return f"{percent(1, change['value'])} ({low} to {high})"


def inverse(change: Mapping[str, Any]) -> dict[str, Any]:
    """The change of a rate from that of a time."""
    return {**change, "value": 1 / change["value"], "low": 1 / change["high"], "high": 1 / change["low"]}


def percent(before: float, after: float) -> str:
    """The change as `−18.3 %`."""
    if not before:
        return "–"
    change = 100 * (after / before - 1)
    sign = "−" if change < -0.05 else "+" if change > 0.05 else "±"
    return f"{sign}{abs(change):.1f} %"


def count(value: float) -> str:
    """`6.88 M`; thousands, millions, milliards (G) and so on."""
    for unit in ("", "k", "M", "G", "T", "P"):
        if value < 999.5 or unit == "P":
            return f"{value:#.3g}".rstrip(".") + f" {unit}" if unit else f"{value:.0f}"
        value /= 1000
    raise AssertionError


def _line(label: str, before: float, after: float, show: Callable[[float], str]) -> Row:
    better = None if abs(after / before - 1) < 5e-4 else after < before
    return Row(label, show(before), show(after), percent(before, after), better)


def _shape(latency: Mapping[str, Any]) -> str:
    return f"{latency['batch']} × {latency['length']} tokens"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 10 else f"{seconds:.1f} s"


def _figure(value: float) -> str:
    return f"{value:.2f}" if value < 1000 else f"{value:.3g}"
