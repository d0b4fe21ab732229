"""ONNX: one graph that ONNX Runtime runs, and its speed beside the dense model's."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

from compress.checkpoint.open import Checkpoint, open_checkpoint
from compress.console import human_bytes
from compress.evaluate.before_after import LARGEST, LENGTH
from compress.evaluate.budget import Budget
from compress.evaluate.load import held_out, load_model
from compress.evaluate.ort_latency import Speeds, ort_speeds
from compress.export.format import Comparison, Format, Timing, Written
from compress.model.model import Model
from compress.onnx import FILE, Exported, export_model
from compress.onnx.settings import OnnxSettings
from compress.registry import formats

NOT_TIMED = (
    "latency in ONNX Runtime not measured: the dense model is too large to be exported for it, or that takes "
    "too long (`--evaluate full` takes the time)"
)


@formats.add("onnx")
class Onnx(Format):
    """A graph for ONNX Runtime, checked against torch at two shapes; decoders keep their cache."""

    settings = OnnxSettings

    def write(self, checkpoint: Checkpoint, folder: Path, settings: OnnxSettings) -> Written:
        """Raises what `compress.onnx.export_model` does."""
        made = export_model(load_model(checkpoint, rules=False), folder, settings)
        apart = max(one.relative for one in made.parity)
        about = (
            f"In `onnx/` is the same model for ONNX Runtime (opset {made.opset}), checked against PyTorch: the largest "
            f"difference is {apart:.1e} of the largest value."
        )
        return Written(made.dump(), _lines(made), about)

    def compare(
        self, dense: Model, folder: Path, settings: OnnxSettings, budget: Budget, took: float
    ) -> Comparison | None:
        """Both models in ONNX Runtime on one sample; nothing where the dense one is above 2 GB or the budget ends."""
        timed = None
        if took < budget.left and dense.checkpoint.bytes <= LARGEST:
            sample = held_out(dense.inputs, dense.checkpoint, length=LENGTH, samples=1)[0]
            trust = dense.checkpoint.trust_remote_code
            pruned = open_checkpoint(folder.parent, trust_remote_code=trust)  # whose tokens may be numbered anew
            samples = sample, dense.inputs.reread([sample], dense.checkpoint, pruned)[0]
            with tempfile.TemporaryDirectory(prefix="compress-") as place:
                self.write(dense.checkpoint, Path(place), settings)
                timed = ort_speeds(Path(place) / FILE, folder / FILE, dense.inputs, samples, budget)
        if timed is None:
            return Comparison(notes=[NOT_TIMED])
        return Comparison({"before": asdict(timed.before), "after": asdict(timed.after)}, _timings(timed))


def _timings(timed: Speeds) -> list[Timing]:
    first, second = timed.before.prefill, timed.after.prefill
    label = f"ONNX Runtime, {first.batch} × {first.length} {first.noun}"
    found = [Timing(label, first.seconds, second.seconds, timed.changes["onnx_prefill"])]
    if timed.before.decode and timed.after.decode:
        rates = (1 / timed.before.decode, 1 / timed.after.decode)
        found.append(Timing("ONNX Runtime, a token more", *rates, timed.changes["onnx_decode"]))
    return found


def _lines(made: Exported) -> list[tuple[str, str]]:
    """Files, inputs, and how far ONNX Runtime is from torch at each shape."""
    lines = [("Opset", str(made.opset))]
    lines += [(name, human_bytes(size)) for name, size in made.files.items()]
    past = [name for name in made.inputs if "." in name]
    for name, shape in made.inputs.items():
        if name not in past[1:]:
            label = f"{name} … {past[-1]}" if past and name == past[0] else name
            lines.append((label, " × ".join(map(str, shape))))
    for one in made.parity:
        label = f"From torch, {one.batch} × {one.length} {made.noun}"
        lines.append((label, f"{one.absolute:.1e} ({one.relative:.1e} of the largest)"))
    return lines
