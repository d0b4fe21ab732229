"""How long a run is silent: seconds to its first line, through the imports, and to the first calibrated block.

python tools/bench/first_sign.py [runs] [model folder]

Without a folder a random Llama of 26 M parameters is pruned, calibrated on random tokens. The medians of some runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from apart import ROOT, median, run, verdict

CODE = "import sys; from compress import cli, console; console.EVERY = 0; cli.main(sys.argv[1:])"
MODEL = """
from pathlib import Path
from random_llama import write
write(Path(%r), layers=8, hidden=512, channels=1408, heads=8, groups=8, vocabulary=4096)
"""
RECIPE = "calibrate: {data: %s, samples: 32, length: 128}\nsteps:\n- {prune: channels, by: wanda, remove: 20%%}\n"


def main(runs: int, model: str | None) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "recipe.yaml").write_text(RECIPE % ("docs" if model else "random"))
        if model is None:
            model = str(folder / "dense")
            run([sys.executable, "-c", MODEL % model], {"PYTHONPATH": str(Path(__file__).parent)})
        once(folder, model, 0)  # writes the byte code
        found = [once(folder, model, number) for number in range(1, runs + 1)]
    first, imported, block = (median(times) for times in zip(*found, strict=True))
    print(f"first line: {first:.2f} s ({verdict(first, 1)}), torch and ours imported: {imported:.2f} s")
    print(f"from there to the first calibrated block: {block - imported:.2f} s ({verdict(block - imported, 3)})")


def once(place: Path, model: str, number: int) -> tuple[float, float, float]:
    """Seconds from the start to the first line, to the list of stages, and to the first block."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COMPRESS_CACHE": str(place / f"cache-{number}")}
    command = [sys.executable, "-c", CODE, str(place / "recipe.yaml"), model, str(place / f"out-{number}")]
    seen: dict[str, float] = {}
    start = time.perf_counter()
    with subprocess.Popen(
        [*command, "--no-evaluate"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            now = time.perf_counter() - start
            seen.setdefault("", now)
            for begin in ("stages:", "calibrating: 1/"):
                if line.startswith(begin):
                    seen.setdefault(begin, now)
    if process.returncode:
        sys.exit(f"the command ended with {process.returncode}")
    return seen[""], seen["stages:"], seen["calibrating: 1/"]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, sys.argv[2] if len(sys.argv) > 2 else None)
