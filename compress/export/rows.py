"""The before/after table, once for the terminal, the page and the model card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from compress.console import human_bytes

if TYPE_CHECKING:
    from compress.export.report import Report


class Row(NamedTuple):
    """One line as text; `better` says whether the change is for the good, None where it cannot be said."""

    label: str
    before: str
    after: str
    change: str
    better: bool | None


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
    if (one := before.get("latency")) and (other := after.get("latency")):
        found.append(_line(f"Latency, {_shape(one)}", one["seconds"], other["seconds"], _milliseconds))
    if (one := before.get("onnx")) and (other := after.get("onnx")):
        first, second = one["prefill"], other["prefill"]
        found.append(_line(f"ONNX Runtime, {_shape(first)}", first["seconds"], second["seconds"], _milliseconds))
        if one["decode"] and other["decode"]:
            found.append(_line("ONNX Runtime, a token more", 1 / one["decode"], 1 / other["decode"], _milliseconds))
    if (one := before.get("perplexity")) and (other := after.get("perplexity")):
        found.append(_line(f"Perplexity at {one['length']} tokens", one["value"], other["value"], _figure))
    if found_similarity := after.get("similarity"):
        found += list(_similarity(found_similarity))
    return found


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


def _similarity(found: Mapping[str, Any]) -> list[Row]:
    names = {"cosine": "Embedding cosine to the dense model", "ranks": "Rank correlation of text pairs"}
    return [
        Row(label, "1", f"{found[name]:.4f}", f"{found[name] - 1:+.4f}".replace("-", "−"), None)
        for name, label in names.items()
        if found.get(name) is not None
    ]


def _shape(latency: Mapping[str, Any]) -> str:
    return f"{latency['batch']} × {latency['length']} tokens"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 10 else f"{seconds:.1f} s"


def _figure(value: float) -> str:
    return f"{value:.2f}" if value < 1000 else f"{value:.3g}"
