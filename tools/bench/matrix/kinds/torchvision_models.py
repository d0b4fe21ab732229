"""The small ones of torchvision's classification, segmentation and detection models, with random weights."""

from __future__ import annotations

from matrix.kind import Kind, Stage
from matrix.listed import entries

KIND = Kind(
    "torchvision",
    lambda: entries("torchvision"),
    (
        Stage("matrix.prune_modules:examine", ("compress.api", "torchvision")),
        Stage("matrix.open_modules:reopen", ("compress.api", "torchvision")),
    ),
    ("built", "traced", "free", "halved", "verified", "coupled", "opened", "onnx"),
    rehearsal="resnet18",
    marked=("onnx",),
    peer=Stage("matrix.peer_torch_pruning:examine_module", ("torch_pruning", "torchvision")),
    needs=("torchvision",),
)
