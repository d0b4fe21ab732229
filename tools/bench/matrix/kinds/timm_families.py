"""A small member of every family of timm, with random weights: timm.tsv."""

from __future__ import annotations

from matrix.kind import Kind, Stage
from matrix.listed import entries

KIND = Kind(
    "timm",
    lambda: entries("timm"),
    (
        Stage("matrix.prune_modules:examine", ("compress.api", "timm")),
        Stage("matrix.open_modules:reopen", ("compress.api", "timm")),
    ),
    ("built", "traced", "free", "halved", "verified", "coupled", "opened", "onnx"),
    rehearsal="test_resnet",
    marked=("onnx",),
    peer=Stage("matrix.peer_torch_pruning:examine_module", ("torch_pruning", "timm")),
    needs=("timm",),
)
