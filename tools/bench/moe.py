"""Mixtures of experts larger than memory, and what watching their experts costs.

    python tools/bench/moe.py memory        # 8 GB of random weights lose half their experts: peak memory
    python tools/bench/moe.py statistics    # REAP's statistics against a plain dense forward of the same tokens

The checkpoints are random, made on the fly and deleted. Every run is a process of its own, timed from its start to its
end; the peak is that of the resident set, mapped files included.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from apart import compress, median, part, table, verdict

SHAPES = {
    "memory": {"layers": 20, "hidden": 2048, "channels": 4096, "heads": 16, "experts": 8, "dtype": "bfloat16"},
    "statistics": {"layers": 8, "hidden": 768, "channels": 1536, "heads": 12, "experts": 8, "dtype": "float32"},
}
LOSE = "steps: [{prune: experts, by: magnitude, remove: 50%}]\n"
WATCH = "calibrate: {data: random, samples: 32, length: 512}\nsteps: [{prune: experts, by: reap, remove: 50%}]\n"


def make(folder: Path, size: str) -> dict:
    from random_mixtral import write

    return {"bytes": write(folder, **SHAPES[size])}


def dense(folder: Path, size: str) -> dict:
    """What anyone would write: the model as a whole, the batches one by one."""
    import torch
    from transformers import AutoModelForCausalLM

    from compress.inputs.text import batches
    from compress.recipe.read import parse_recipe

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    given, _ = batches(parse_recipe(WATCH).calibrate, None, model.config)
    with torch.no_grad():
        for batch in given:
            model.model(**batch, use_cache=False)
    return {}


PARTS = {"make": make, "dense": dense}


def memory(place: Path) -> None:
    weights = part(__file__, "make", place / "dense", "memory")[0]["bytes"]
    (place / "recipe.yaml").write_text(LOSE)
    done = compress(place / "recipe.yaml", place / "dense", place / "out", "--quiet", "--no-evaluate")
    print(f"{weights / 1e9:.1f} GB lose half their experts in {done.seconds:.0f} s")
    print(f"peak memory {done.peak / 1e9:.2f} GB ({verdict(done.peak / 1e9, 4)})")


def statistics(place: Path, turns: int) -> None:
    part(__file__, "make", place / "dense", "statistics")
    (place / "recipe.yaml").write_text(WATCH)
    plain, watched = [], []
    for _ in range(turns):  # in turns: whatever else the machine does falls on both
        plain.append(part(__file__, "dense", place / "dense", "statistics")[1])
        cache = {"COMPRESS_CACHE": str(place / "cache")}
        command = ("plan", place / "recipe.yaml", place / "dense", "--to", place / "plan.json", "--quiet", "--force")
        watched.append(compress(*command, environment=cache))
        shutil.rmtree(place / "cache")
    rows = [
        [
            name,
            f"{median(r.seconds for r in runs):.1f} s",
            f"{median(r.cpu for r in runs):.1f} s",
            f"{max(r.peak for r in runs) / 1e9:.2f} GB",
        ]
        for name, runs in (("dense forward", plain), ("experts watched and chosen", watched))
    ]
    table(["run", "wall time", "processor time", "peak RSS"], rows)
    ratio = median(r.seconds for r in watched) / median(r.seconds for r in plain)
    print(f"\n{ratio:.2f} of the dense forward's time ({verdict(ratio, 1.2)})")


if __name__ == "__main__":
    if sys.argv[1] in PARTS:
        print(json.dumps(PARTS[sys.argv[1]](Path(sys.argv[2]), sys.argv[3])))
    else:
        place = Path(tempfile.mkdtemp(prefix="bench-moe-"))
        try:
            memory(place) if sys.argv[1] == "memory" else statistics(place, int((sys.argv[2:] or ["1"])[0]))
        finally:
            shutil.rmtree(place)
