"""What was written, opened as its reader will: stock transformers in a process that never sees compress."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

from matrix.given import apart, tensors
from matrix.kind import Entry, Say

ALIKE = 1e-5
"""Largest difference of two outputs that are the same, as a share of the largest value."""


def reopen(entry: Entry, folder: Path, say: Say) -> None:
    """Load the pruned folder by the very line of Python that its plan gives, and run it on the same inputs."""
    if not (folder / "case.json").exists():  # it did not come so far
        return
    transformers.logging.set_verbosity_error()
    os.environ["HF_MODULES_CACHE"] = transformers.dynamic_module_utils.HF_MODULES_CACHE = str(folder / "modules")
    case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    line = case["how"].format(folder=str(folder / "pruned")).removesuffix(")") + ", output_loading_info=True)"
    model, info = eval(line, {"transformers": transformers})
    lost = {name: found for name, found in info.items() if found}
    inputs = {name.removeprefix("in."): x for name, x in load_file(folder / "inputs.safetensors").items()}
    found = _output(model.eval(), inputs)
    off = apart(found, load_file(folder / "outputs.safetensors"))
    if any(name.partition(".")[0] == "compress" for name in sys.modules):
        raise RuntimeError("compress was imported")
    say(opened=not lost and off <= ALIKE, remote=case["remote_code"], opened_off=off)
    say(opened_why=f"loading says {lost}" if lost else f"its output differs by {off:.0e} from what was verified")
    if (folder / "onnx" / "model.onnx").exists():
        off = apart(*_both(folder / "onnx" / "model.onnx", model, inputs))
        say(onnx=off <= 10 * ALIKE, onnx_off=off, onnx_why=f"ONNX Runtime's output differs by {off:.0e}")


def _both(file: Path, model: Any, inputs: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """ONNX Runtime's outputs and the stock model's, of the names that both have."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    wanted = {value.name for value in session.get_inputs()}
    if (ids := inputs.get("input_ids")) is not None:
        made = {"attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
        made["position_ids"] = torch.arange(ids.shape[1]).expand_as(ids).contiguous()
        inputs = {**{name: x for name, x in made.items() if name in wanted}, **inputs}
    names = [value.name for value in session.get_outputs()]
    found = session.run(None, {name: x.numpy() for name, x in inputs.items() if name in wanted})
    theirs = _output(model, inputs)
    ours = {name: torch.from_numpy(x) for name, x in zip(names, found, strict=True) if name in theirs}
    return ours, {name: theirs[name] for name in ours}


def _output(model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    torch.manual_seed(0)  # some mask at random
    with torch.no_grad():
        return tensors(model(**inputs))
