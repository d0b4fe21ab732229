"""How a pruned ONNX graph is written: as the file itself, with smaller weights and other sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from compress.errors import ModelError
from compress.model.model import Model
from compress.onnx_model.architecture import OnnxArchitecture
from compress.onnx_model.sizes import Conflict


def describe_onnx(source: Model, kept: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    """Who opens the file that keeps `kept`, and the notes on it; None for another kind of model.

    Raises ModelError, naming the node, where the graph's sizes cannot follow.
    """
    architecture = source.checkpoint.architecture
    if not isinstance(architecture, OnnxArchitecture):
        return None
    try:
        changes, _ = architecture.traced.cut(kept)
    except Conflict as why:
        raise ModelError(f"{architecture.file.path}: {why}; leave {', '.join(sorted(why.families))} whole") from None
    kinds = sorted({change.node.kind for change in changes})
    return {
        "who": "ONNX Runtime",
        "how": "onnxruntime.InferenceSession({folder!r})",
        "notes": (f"sizes in {len(changes)} nodes follow ({', '.join(kinds)})",) if changes else (),
    }
