"""A decoder that lost half of its heads and channels, in ONNX Runtime and in torch, beside the dense one.

    python tools/bench/onnx_speed.py

The model is a random Llama of 150 M parameters; one prompt of 256 tokens, 32 tokens after it. The command exports both
models itself and writes what it measured into report.json.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from apart import compress, part, table

SHAPE = {"layers": 10, "hidden": 1024, "channels": 4096, "heads": 16, "groups": 16, "vocabulary": 8000}
RECIPE = "steps: [{prune: [heads, channels], by: magnitude, remove: 50%}]\nexport: onnx\n"


def make(folder: Path) -> dict:
    from random_llama import write

    return {"bytes": write(folder, **SHAPE)}


def main(place: Path) -> None:
    part(__file__, "make", place / "dense")
    (place / "recipe.yaml").write_text(RECIPE)
    compress(place / "recipe.yaml", place / "dense", place / "out", "--evaluate", "full", "--quiet")
    report = json.loads((place / "out" / "report.json").read_text())
    before, after = report["before"], report["after"]
    speed = report["exports"]["onnx"]["speed"]
    rows = [
        (f"ONNX Runtime, {label}", *(read(speed[side]) for side in ("before", "after")))
        for label, read in (
            ("256 tokens", lambda speed: speed["prefill"]["seconds"]),
            ("a token more", lambda speed: 1 / speed["decode"]),
        )
    ]
    rows.insert(0, ("torch, 256 tokens", before["latency"]["seconds"], after["latency"]["seconds"]))
    print(f"{before['params'] / 1e6:.0f} M → {after['params'] / 1e6:.0f} M parameters\n")
    table(
        ["", "dense", "half removed", "faster"],
        [(label, f"{1e3 * one:.1f} ms", f"{1e3 * two:.1f} ms", f"{one / two:.2f} ×") for label, one, two in rows],
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["make"]:
        print(json.dumps(make(Path(sys.argv[2]))))
    else:
        with tempfile.TemporaryDirectory(prefix="bench-onnx-") as folder:
            main(Path(folder))
