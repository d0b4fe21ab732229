"""What ten recipes cost in one `compress compare`, of what one of them costs alone; evaluation apart.

python tools/bench/compare.py [MODEL]
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from apart import ROOT, compress, verdict

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

        def seconds(*arguments: str | Path) -> float:
            cache = Path(folder) / "cache"
            shutil.rmtree(cache, ignore_errors=True)
            shutil.copytree(text, cache / "text")
            quiet = ("--no-evaluate", "--force", "-q")
            return compress(*arguments, *quiet, environment={"COMPRESS_CACHE": str(cache)}).seconds

        out = Path(folder) / "out"
        one = seconds(RECIPE, model, out)
        sweep = seconds("compare", RECIPE, model, "-o", out, "--sweep", f"steps.0.keep.params={TEN}")
        apart = {name: seconds(RECIPE.with_name(f"{name}.yaml"), model, out) for name in DIFFERENT}
        ten = seconds("compare", *(RECIPE.with_name(f"{name}.yaml") for name in DIFFERENT), model, "-o", out)
    print(f"one recipe: {one:.1f} s; in ten sizes: {sweep:.1f} s, {sweep / one:.2f} × ({verdict(sweep / one, 2)})")
    dearest = max(apart, key=lambda name: apart[name])
    ratio = ten / apart[dearest]
    print(
        f"ten different recipes: {ten:.1f} s, {ratio:.2f} × the dearest, {dearest} ({verdict(ratio, 2)}), "
        f"{ten / sum(apart.values()):.2f} × all of them alone"
    )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else str(Path("~/.cache/compress/models/llama-docs").expanduser()))
