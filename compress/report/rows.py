"""The before/after table, once for the terminal, the page and the model card."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from compress.console import human_bytes
from compress.metrics.kind import Scale

if TYPE_CHECKING:
    from compress.report.document import Report


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
    """The lines that both sides have figures for."""
    before, after = report["before"], report["after"]
    found = [
        _line("Parameters", before["params"], after["params"], count),
        _line(flops_label(before.get("flops_length")), before["flops"], after["flops"], count),
        _line("Weights on disk", before["bytes"], after["bytes"], human_bytes),
    ]
    if zeros := after.get("zeros"):
        found.insert(1, Row("Zero weights", "0", count(zeros), f"{zeros / after['params']:.1%}", None))
    return [*found, *_visual_tokens(report), *_times(report), *_quality(report)]


def _visual_tokens(report: Report) -> Iterator[Row]:
    if (found := report.get("visual_tokens")) is None:
        return
    many, prompt = found["visual"], f"{found['visual']:.0f} + {found['text']:.0f} tokens"
    yield _line("Visual tokens, mean over decoder layers", many, many * mean_kept(found), lambda value: f"{value:.0f}")
    (dense, pruned), (held, holds) = found["flops"], found["cache"]
    yield _line(f"FLOPs of the decoder's prefill, {prompt}", dense, pruned, count)
    yield _line(f"Key/value cache, {prompt}", held, holds, human_bytes)


def mean_kept(visual_tokens: Mapping[str, Any]) -> float:
    """The share of visual tokens that the decoder's layers read, in the mean over layers."""
    return sum(visual_tokens["kept"]) / len(visual_tokens["kept"])


def _times(report: Report) -> Iterator[Row]:
    before, after = report["before"], report["after"]
    if (one := before.get("latency")) and (other := after.get("latency")):
        change = report.get("changes", {})["latency"]
        name = "Time to first token" if "visual_tokens" in report else "Latency"
        yield _time(f"{name}, {_shape(one)}", one["seconds"], other["seconds"], change)
    for export in report.get("exports", {}).values():
        for timing in export.get("timings", ()):
            yield _time(**timing)


def _time(label: str, before: float, after: float, change: Mapping[str, Any]) -> Row:
    better = change["value"] < 1 if change["measurable"] else None
    return Row(label, _milliseconds(before), _milliseconds(after), shown(change), better, change["measurable"])


def _quality(report: Report) -> Iterator[Row]:
    for one in report.get("quality", {}).get("figures", ()):
        change = report.get("changes", {}).get(one["name"])
        before = "1" if one["scale"] == Scale.SIMILARITY else written(one["dense"], one["scale"])
        after = written(one["value"], one["scale"])
        yield Row(label(one), before, after, _change(one, change), _better(one, change))


def _change(one: Mapping[str, Any], change: Mapping[str, Any] | None) -> str:
    """In words; where no error is known (two samples have a correlation, but no error of it) without a range."""
    if one["scale"] != Scale.SIMILARITY:
        return shown(change) if change is not None else percent(one["dense"], one["value"])
    apart = f"{one['value'] - 1:+.4f}".replace("-", "−")
    if change is None:
        return apart
    return f"{apart} ± {(change['high'] - change['low']) / 2:.4f}" if change["measurable"] else NO_DIFFERENCE


def _better(one: Mapping[str, Any], change: Mapping[str, Any] | None) -> bool | None:
    """None also of a similarity, which can but fall."""
    if one["scale"] == Scale.SIMILARITY or change is None or not change["measurable"]:
        return None
    return (change["value"] > 1) == one["higher_is_better"]


def flops_label(length: int | None) -> str:
    """What FLOPs are of: so many tokens, or a sample where its length is not free."""
    return f"FLOPs of {length} tokens" if length is not None else "FLOPs of a sample"


def label(figure: Mapping[str, Any]) -> str:
    """A `compress.metrics.kind.Figure` in words: `Perplexity, 64 × 256 tokens`."""
    return f"{figure['title']}, {figure['over']}"


def written(value: float, scale: str, margin: float | None = None) -> str:
    """A figure's value, and in the same form how far chance may carry it to each side."""
    number = ".2f" if 0.1 <= abs(value) < 1000 or not value else ".3g"
    form = {Scale.SHARE: ".1f", Scale.SIMILARITY: ".4f"}.get(Scale(scale), number)
    times, unit = (100, " %") if scale == Scale.SHARE else (1, "")
    around = "" if margin is None else f"±{times * margin:{form}}"
    return f"{times * value:{form}}{around}{unit}"


def shown(change: Mapping[str, Any]) -> str:
    """A `compress.metrics.change.Change` of a cost as `+24.4 % (+23.1 to +25.7)`."""
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
    return f"{latency['batch']} × {latency['length']} {latency['noun']}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 10 else f"{seconds:.1f} s"
