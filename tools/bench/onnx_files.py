"""ONNX files that others made, each without a share of its heads and channels, in ONNX Runtime beside what it was.

    python tools/bench/onnx_files.py FILE.onnx …

Calibrated and compared on random numbers, so the similarity says that little broke, not how good a file still is.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from apart import table

import compress
from compress.errors import CompressError
from compress.recipe.read import parse_recipe

RECIPE = """
calibrate: {data: random, samples: 4, length: 64}
steps:
- {prune: [heads, channels], by: fluctuation, remove: 30%, allocate: standardized, repair: bias, widths: per-layer}
"""


def row(file: Path) -> tuple[str, ...]:
    with tempfile.TemporaryDirectory(prefix="bench-onnx-") as folder:
        try:
            report = compress.run(parse_recipe(RECIPE), file, Path(folder) / "small.onnx")
        except CompressError as error:
            return file.name, "–", "–", "–", "–", f"{type(error).__name__}: {error}"
    assert report is not None and "families" in report
    before, after = report["before"]["params"], report["after"]["params"]
    (equal,) = [note for note in report["notes"] if note.startswith("ONNX Runtime: ")]
    figures = report.get("quality", {}).get("figures", [])
    cosine = f"{figures[0]['value']:.4f}" if figures else "–"
    faster = f"{1 / report['changes']['latency']['value']:.2f} ×" if "latency" in report["changes"] else "–"
    return file.name, f"{before / 1e6:.2f} M", f"{after / 1e6:.2f} M", cosine, faster, equal.partition(": ")[2]


if __name__ == "__main__":
    heads = ["file", "before", "after", "cosine", "faster", "of the masked input"]
    table(heads, [row(Path(name)) for name in sys.argv[1:]])
