"""What ten recipes cost in one `compress compare`, of what one of them costs alone; evaluation apart.

python tools/bench/compare.py [MODEL]

Where other work shares the machine, the ratios of processor time are the steadier ones.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from apart import ROOT, Run, compress, verdict

RECIPE = ROOT / "recipes" / "contrasts" / "structured.yaml"
TEN = ",".join(f"{share}%" for share in range(77, 97, 2))
DIFFERENT = [
    "allocation-global",
    "criterion-fluctuation",
    "criterion-magnitude",
    "criterion-random",
    "criterion-taylor",
    "granularity-channels",
    "granularity-layers",
    "repair-bias",
    "repair-least-squares",
    "structured",
]


def main(model: str) -> None:
    """One recipe, the same in ten sizes, ten different ones; each with an empty cache but for the text."""
    text = Path("~/.cache/compress/text").expanduser()
    with tempfile.TemporaryDirectory() as folder:

        def measure(*arguments: str | Path) -> Run:
            cache = Path(folder) / "cache"
            shutil.rmtree(cache, ignore_errors=True)
            shutil.copytree(text, cache / "text")
            quiet = ("--no-evaluate", "--force", "-q")
            return compress(*arguments, *quiet, environment={"COMPRESS_CACHE": str(cache)})

        out = Path(folder) / "out"
        one = measure(RECIPE, model, out)
        sweep = measure("compare", RECIPE, model, "-o", out, "--sweep", f"steps.0.keep.params={TEN}")
        alone = {name: measure(RECIPE.with_name(f"{name}.yaml"), model, out) for name in DIFFERENT}
        ten = measure("compare", *(RECIPE.with_name(f"{name}.yaml") for name in DIFFERENT), model, "-o", out)
    ratio = sweep.seconds / one.seconds
    print(
        f"one recipe: {one.seconds:.1f} s; in ten sizes: {sweep.seconds:.1f} s, {ratio:.2f} × ({verdict(ratio, 2)}), "
        f"{sweep.cpu / one.cpu:.2f} × its processor time"
    )
    dearest = max(alone, key=lambda name: alone[name].seconds)
    ratio = ten.seconds / alone[dearest].seconds
    print(
        f"ten different recipes: {ten.seconds:.1f} s, {ratio:.2f} × the dearest, {dearest} ({verdict(ratio, 2)}), "
        f"{ten.seconds / sum(run.seconds for run in alone.values()):.2f} × all of them alone; "
        f"{ten.cpu / max(run.cpu for run in alone.values()):.2f} × the dearest's processor time"
    )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else str(Path("~/.cache/compress/models/llama-docs").expanduser()))
