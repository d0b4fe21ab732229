"""What was written, opened as its reader will: by the library's name, in a process that never saw it pruned."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

import compress
from matrix.answers import answers
from matrix.given import apart
from matrix.kind import Entry, Say
from matrix.listed import line_of

ALIKE = 1e-5
"""Largest difference of two outputs that are the same, as a share of the largest value."""


def reopen(entry: Entry, folder: Path, say: Say) -> None:
    """Load the pruned folder by `compress.load`, and run it on the same inputs."""
    if not (folder / "pruned").exists():  # it did not come so far
        return
    module = compress.load(folder / "pruned", build=line_of(entry).build)
    x = load_file(folder / "given.safetensors")["x"]
    found = answers(module, x)
    off = apart(found, load_file(folder / "outputs.safetensors"))
    say(opened=off <= ALIKE, opened_off=off, opened_why=f"its output differs by {off:.0e} from what was verified")
    if "onnx" in entry.marks:
        say(onnx=False, onnx_why="the export did not end")
        _export(module, x, folder / "model.onnx", say)


def _export(module: torch.nn.Module, x: torch.Tensor, file: Path, say: Say) -> None:
    """By torch's own exporter, compared in ONNX Runtime."""
    import onnxruntime

    torch.onnx.export(module, (x,), file, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    given = {session.get_inputs()[0].name: x.numpy()}
    theirs = {str(place): torch.from_numpy(y) for place, y in enumerate(session.run(None, given))}
    off = apart(theirs, answers(module, x))
    say(onnx=off <= 10 * ALIKE, onnx_off=off, onnx_why=f"ONNX Runtime's output differs by {off:.0e}")
