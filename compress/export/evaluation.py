"""The table of what `compress eval` measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from compress.console import human_bytes
from compress.export.rows import count, percent

if TYPE_CHECKING:
    from rich.table import Table

Line = tuple[str, float, str]


def evaluation_table(found: dict[str, Any]) -> Table:
    """One column for the model, and before it one for the dense model where there is one."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    own, dense = list(lines(found)), dict[str, Line]()
    drawn = Table(box=box.SIMPLE_HEAD, title=escape(f"{found['model']} ({found['architecture']})"), pad_edge=False)
    drawn.caption = escape("\n".join(found["notes"])) or None
    drawn.add_column("")
    if "against" in found:
        dense = {line[0]: line for line in lines(found["against"])}
        drawn.add_column("dense", justify="right", no_wrap=True)
    drawn.add_column("", justify="right", no_wrap=True)
    if dense:
        drawn.add_column("change", justify="right", no_wrap=True)
    for label, value, written in own:
        other = dense.get(label)
        beside = [other[2] if other else ""] if dense else []
        change = [percent(other[1], value) if other else ""] if dense else []
        drawn.add_row(escape(label), *beside, written, *change)
    return drawn


def lines(found: dict[str, Any]) -> Iterator[Line]:
    """What, its figure, and the figure as text."""
    yield "Parameters", found["parameters"], count(found["parameters"])
    if "flops" in found:
        yield f"FLOPs of {found['flops_length']} tokens", found["flops"], count(found["flops"])
    yield "Weights on disk", found["bytes"], human_bytes(found["bytes"])
    if "peak_memory" in found:
        yield "Peak memory of the process", found["peak_memory"], human_bytes(found["peak_memory"])
    if quality := found.get("perplexity"):
        yield f"Perplexity at {quality['length']} tokens", quality["value"], f"{quality['value']:.2f}"
    if quality := found.get("accuracy"):
        value = quality["value"]
        yield f"Top-1 accuracy, {quality['samples']} texts", value, f"{100 * value:.1f} %"
    yield from _similarity(found.get("similarity") or {})
    for score in found.get("tasks", ()):
        error = f" ± {score['error']:.4f}" if score["error"] is not None else ""
        label = f"{score['task']}, {score['metric']} of {score['samples']}"
        yield label, score["value"], f"{score['value']:.4f}{error}"
    yield from _speed(found.get("speed") or {})
    yield from _speed(found.get("onnx") or {}, "ONNX Runtime: ")


def _similarity(found: dict[str, Any]) -> Iterator[Line]:
    for name, label in (("cosine", "Embedding cosine to the dense model"), ("ranks", "Rank correlation of text pairs")):
        if found.get(name) is not None:
            yield label, found[name], f"{found[name]:.4f}"


def _speed(found: dict[str, Any], where: str = "") -> Iterator[Line]:
    if not found:
        return
    prefill = found["prefill"]
    label = f"{where}{'Forward of' if found['decode'] is None else 'Prefill,'} {prefill['length']} tokens"
    yield label, prefill["seconds"], f"{1000 * prefill['seconds']:.1f} ms"
    if found["decode"] is not None:
        yield f"{where}Decode, one sequence", found["decode"], f"{found['decode']:.0f} tokens/s"
    if "throughput" in found:
        yield f"Throughput, {found['rows']} sequences", found["throughput"], f"{found['throughput']:.0f} tokens/s"
