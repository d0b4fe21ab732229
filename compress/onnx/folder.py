"""The folder with the graph in it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from compress.errors import InputError
from compress.onnx.graph import write_graph
from compress.onnx.interface import interface_of
from compress.onnx.parity import Parity, check
from compress.onnx.session import Session
from compress.onnx.settings import OnnxSettings

FILE = "model.onnx"


@dataclass(frozen=True)
class Exported:
    """What was written: `files` and their bytes, the `opset`, shapes of the `inputs`, and how near to torch it is.

    `noun`: what the length of a sample counts.
    """

    files: dict[str, int]
    opset: int
    inputs: dict[str, list[int | str]]
    outputs: list[str]
    parity: list[Parity]
    noun: str = "tokens"

    def dump(self) -> dict[str, Any]:
        """As data."""
        return {**asdict(self), "parity": [{**asdict(one), "relative": one.relative} for one in self.parity]}


def export_model(model: nn.Module, folder: Path, settings: OnnxSettings) -> Exported:
    """Write `model`, in float32 on the processor, as `folder`/model.onnx and check it in ONNX Runtime.

    What it takes goes by the kind of inputs that the model has. An encoder's graph gives its output, a decoder's logits
    and, with `cache`, keys and values; a model with an encoder and a decoder gives logits without a cache. Raises
    InputError, ModelError, and VerifyError above the tolerance.
    """
    interface = interface_of(model, settings.cache)
    if interface.cache and "sequence" not in settings.dynamic:
        raise InputError(
            "dynamic: a decoder with a cache reads texts of any length; add `sequence`, or leave the cache"
        )
    longest = interface.longest
    if "sequence" not in settings.dynamic and longest is not None and settings.length > longest:
        raise InputError(f"length {settings.length}: the model takes at most {longest} {interface.noun}")
    for part in model.modules():  # without `use_cache` among the inputs, what the config says holds
        if hasattr(own := getattr(part, "config", None), "use_cache"):
            own.use_cache = interface.cache  # pyright: ignore[reportOptionalMemberAccess]
    opset = write_graph(model, interface, settings, folder / FILE)
    parity = check(model, interface, folder / FILE, settings)
    session = Session(folder / FILE)
    files = {file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.is_file()}
    return Exported(files, opset, session.shapes, session.outputs, parity, interface.noun)
