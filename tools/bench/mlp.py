"""Latency of MLPs that lost half of their channels, against a dense model built at that size.

    python tools/bench/mlp.py

A random Llama is pruned by the command and opened by `from_pretrained`; the peer is a fresh model of half the width.
All are timed in turns in one process, so that whatever else the machine does falls on each.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from apart import compress, median, part, table, verdict

SHAPE = {"layers": 2, "hidden": 1024, "channels": 4096, "heads": 16, "groups": 16, "vocabulary": 1000}
RECIPE = "steps: [{prune: channels, by: magnitude, remove: 50%}]"
TOKENS, ROUNDS = 256, 60


def make(folder: Path) -> dict:
    from random_llama import write

    return {"bytes": write(folder, **SHAPE)}


def measure(folder: Path) -> dict:
    """Median seconds of one MLP over `[1, 256, hidden]`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    pruned = LlamaForCausalLM.from_pretrained(folder / "out")
    half = LlamaConfig(**{**pruned.config.to_dict(), "intermediate_size": SHAPE["channels"] // 2})
    models: dict[str, Any] = {
        "dense": LlamaForCausalLM.from_pretrained(folder / "dense"),
        "pruned": pruned,
        "built at that size": LlamaForCausalLM(half),
    }
    x, times = torch.randn(1, TOKENS, SHAPE["hidden"]), {name: [] for name in models}
    with torch.inference_mode():
        for number in range(ROUNDS + 5):
            for name, model in models.items():
                start = time.perf_counter()
                for layer in model.model.layers:
                    layer.mlp(x)
                if number >= 5:
                    times[name].append((time.perf_counter() - start) / SHAPE["layers"])
    widths = {name: model.model.layers[0].mlp.down_proj.in_features for name, model in models.items()}
    return {"seconds": {name: median(values) for name, values in times.items()}, "widths": widths}


def main() -> None:
    place = Path(tempfile.mkdtemp(prefix="bench-mlp-"))
    try:
        part(__file__, "make", place / "dense")
        (place / "recipe.yaml").write_text(RECIPE)
        compress(place / "recipe.yaml", place / "dense", place / "out", "--quiet", "--no-evaluate")
        found = part(__file__, "measure", place)[0]
    finally:
        shutil.rmtree(place)
    seconds = found["seconds"]
    table(
        ["MLP", "channels", "latency", "of dense"],
        [
            [name, found["widths"][name], f"{value * 1e3:.2f} ms", f"{value / seconds['dense']:.2f}"]
            for name, value in seconds.items()
        ],
    )
    ratio = seconds["pruned"] / seconds["built at that size"]
    print(f"\npruned against built at that size: {ratio:.2f} ({verdict(ratio, 1.1)})")


if __name__ == "__main__":
    parts = {"make": make, "measure": measure}
    if len(sys.argv) > 1:
        print(json.dumps(parts[sys.argv[1]](Path(sys.argv[2]))))
    else:
        main()
