"""What tells an ONNX file."""

from __future__ import annotations

from pathlib import Path

SUFFIX = ".onnx"


def is_onnx(name: str | Path) -> bool:
    """Whether what a command names is an ONNX file."""
    return str(name).endswith(SUFFIX)
