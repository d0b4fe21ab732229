"""A checkpoint exported to ONNX, what that gave as a table, and its speed beside the dense model's."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from compress.checkpoint.open import Checkpoint
from compress.console import human_bytes, working
from compress.evaluate.before_after import LARGEST, LENGTH
from compress.evaluate.budget import Budget
from compress.evaluate.load import held_out, load_model
from compress.evaluate.ort_latency import Speeds, ort_speeds
from compress.model.source import Source
from compress.onnx import FILE, Exported, export_model
from compress.recipe.export import Onnx

if TYPE_CHECKING:
    from rich.table import Table


def export_onnx(checkpoint: Checkpoint, folder: Path, settings: Onnx) -> Exported:
    """Write the model into `folder`, which exists. Raises what `compress.onnx.export_model` does."""
    with working("exporting to ONNX"):
        return export_model(load_model(checkpoint, rules=False), folder, settings)


def speeds(dense: Source, graph: Path, settings: Onnx, budget: Budget) -> Speeds | None:
    """Both models in ONNX Runtime on one sample, the dense one exported for it; None where that is above 2 GB or the
    budget too small."""
    if dense.checkpoint.bytes > LARGEST:
        return None
    sample = held_out(dense.inputs, dense.checkpoint, length=LENGTH, samples=1)[0]
    with tempfile.TemporaryDirectory(prefix="compress-") as folder:
        export_onnx(dense.checkpoint, Path(folder), settings)
        return ort_speeds(Path(folder) / FILE, graph, dense.inputs, sample, budget)


def onnx_table(made: Exported, folder: Path) -> Table:
    """Files, inputs, and how far ONNX Runtime is from torch at each shape."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    drawn = Table(box=box.SIMPLE_HEAD, title=escape(f"{folder} (opset {made.opset})"), pad_edge=False)
    drawn.add_column("")
    drawn.add_column("", justify="right", no_wrap=True)
    for name, size in made.files.items():
        drawn.add_row(escape(name), human_bytes(size))
    past = [name for name in made.inputs if "." in name]
    for name, shape in made.inputs.items():
        if name not in past[1:]:
            label = f"{name} … {past[-1]}" if past and name == past[0] else name
            drawn.add_row(escape(label), escape(" × ".join(map(str, shape))))
    for one in made.parity:
        label = f"From torch, {one.batch} × {one.length} {made.noun}"
        drawn.add_row(label, f"{one.absolute:.1e} ({one.relative:.1e} of the largest)")
    return drawn
