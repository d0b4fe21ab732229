"""One-pass FLAP by the command, against a plain dense forward of the same tokens through `from_pretrained`.

    python tools/bench/streaming.py             # 1.1 GB of weights, 32 × 512 tokens: time, memory, a second recipe
    python tools/bench/streaming.py large       # 6 GB of weights, 4 × 256 tokens: memory
    python tools/bench/streaming.py small       # a minute, to see that it runs

The checkpoints are random, made on the fly and deleted. Every run is a process of its own, timed from its start to its
end, imports, reading, writing and verifying included; the peak is that of the resident set, mapped files included.
Measuring the quality of what came out is no part of it (`--no-evaluate`): that loads whole models.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from apart import Run, compress, median, part, table, verdict

SHAPES = {
    "small": {"layers": 8, "hidden": 512, "channels": 2048, "heads": 8, "groups": 8},
    "usual": {"layers": 12, "hidden": 1024, "channels": 4096, "heads": 16, "groups": 16},
    "large": {"layers": 32, "hidden": 2048, "channels": 5632, "heads": 32, "groups": 4},
}
TOKENS = {"small": (8, 256, 4), "usual": (32, 512, 8), "large": (4, 256, 2)}  # samples, length, samples at a time
FIRST = """
calibrate: {{data: random, samples: {}, length: {}, batch: {}}}
steps:
  - {{prune: [heads, channels], by: fluctuation, remove: 20%, allocate: standardized, repair: bias}}
"""
SECOND = """
calibrate: {{data: random, samples: {}, length: {}, batch: {}}}
steps:
  - prune: [heads, channels]
    by: {{fluctuation: {{metric: ifv}}}}
    remove: 30%
    allocate: standardized
    repair: bias
"""
OPTIONS = ("--force", "--quiet", "--no-evaluate")
LIMITS = {"small": 0.6, "usual": 0.6, "large": 0.35}


def make(folder: Path, size: str) -> dict:
    from random_llama import write

    return {"bytes": write(folder, **SHAPES[size])}


def dense(folder: Path, size: str) -> dict:
    """What anyone would write: the model as a whole, the batches one by one."""
    import torch
    from transformers import AutoModelForCausalLM

    from compress.inputs.text import batches
    from compress.recipe.read import parse_recipe

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    given, _ = batches(parse_recipe(FIRST.format(*TOKENS[size])).calibrate, None, model.config)
    start = time.perf_counter()
    with torch.no_grad():
        for batch in given:
            model(**batch, use_cache=False)
    return {"forward": time.perf_counter() - start}


PARTS = {"make": make, "dense": dense}


def main(size: str, turns: int) -> None:
    place = Path(tempfile.mkdtemp(prefix="bench-streaming-"))
    try:
        folder, recipes = place / "dense", [place / "first.yaml", place / "second.yaml"]
        weights = part(__file__, "make", folder, size)[0]["bytes"]
        for recipe, text in zip(recipes, (FIRST, SECOND), strict=True):
            recipe.write_text(text.format(*TOKENS[size]))
        plain, first, second = [], [], []
        for _ in range(turns):  # in turns: whatever else the machine does falls on both
            plain.append(part(__file__, "dense", folder, size)[1])
            cache = {"COMPRESS_CACHE": str(place / "cache")}
            for runs, recipe in ((first, recipes[0]), (second, recipes[1])):
                runs.append(compress(recipe, folder, place / "out", *OPTIONS, environment=cache))
            shutil.rmtree(place / "cache")
        _show(size, weights, plain, first, second)
    finally:
        shutil.rmtree(place)


def _show(size: str, weights: int, *runs: list[Run]) -> None:
    names = ["dense forward", "first recipe", "second recipe"]
    samples, length, batch = TOKENS[size]
    print(f"\n{weights / 1e9:.2f} GB of weights, {samples} × {length} tokens, {batch} sequences at a time\n")
    seconds = [median(run.seconds for run in some) for some in runs]
    cpu = [median(run.cpu for run in some) for some in runs]
    peaks = [max(run.peak for run in some) for some in runs]
    table(
        ["run", "wall time", "of dense", "processor time", "of dense", "peak RSS", "of dense"],
        [
            [
                name,
                *(f"{n:.1f} s | {n / m:.2f}" for n, m in ((s, seconds[0]), (c, cpu[0]))),
                f"{p / 1e9:.2f} GB",
                f"{p / peaks[0]:.2f}",
            ]
            for name, s, c, p in zip(names, seconds, cpu, peaks, strict=True)
        ],
    )
    print(f"\nmemory: {peaks[1] / peaks[0]:.2f} of the dense forward's ({verdict(peaks[1] / peaks[0], LIMITS[size])})")
    if size == "usual":
        print(f"time: {seconds[1] / seconds[0]:.2f} of the dense forward's ({verdict(seconds[1] / seconds[0], 1.25)})")
        faster = seconds[1] / seconds[2]
        print(f"second recipe: {faster:.1f} times faster (≥ 5: {'met' if faster >= 5 else 'MISSED'})")


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in PARTS:
        print(json.dumps(PARTS[sys.argv[1]](Path(sys.argv[2]), sys.argv[3])))
    else:
        chosen = next((word for word in sys.argv[1:] if word in SHAPES), "usual")
        main(chosen, next((int(word) for word in sys.argv[1:] if word.isdigit()), 1))
