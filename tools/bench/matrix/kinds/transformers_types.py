"""Every model type of transformers that can be built tiny, with random weights: transformers.tsv."""

from __future__ import annotations

import csv
from pathlib import Path

from matrix.kind import Entry, Kind, Stage

FILE = Path(__file__).parents[1] / "transformers.tsv"


def entries() -> list[Entry]:
    """Those of the committed list."""
    with FILE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [Entry("transformers", r["type"], r["group"], r["class"], tuple((r["marks"] or "").split())) for r in rows]


KIND = Kind(
    "transformers",
    entries,
    (
        Stage("matrix.prune_transformers:examine", ("compress.pipeline",)),
        Stage("matrix.open_transformers:reopen"),
    ),
    ("built", "traced", "free", "halved", "verified", "coupled", "opened", "onnx"),
    rehearsal="llama",
    marked=("onnx",),
    peer=Stage("matrix.peer_torch_pruning:examine", ("torch_pruning", "transformers")),
)
