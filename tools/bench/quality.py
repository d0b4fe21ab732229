"""What the recipes that remove whole units keep of models that others trained: the tables of docs/benchmarks.md.

    python tools/bench/quality.py             # SmolLM2-135M, 20 % of its blocks gone; an hour on one core
    python tools/bench/quality.py contrasts   # the same model, recipes that differ in one thing each
    python tools/bench/quality.py minilm      # the contrasts on MiniLM
    python tools/bench/quality.py --read compare.json …  # the table of comparisons that were run already

All recipes calibrate on the same 64 × 256 tokens of `docs` and are measured on the same sequences of `manuals`. What
stands behind ± is the standard error of the ratio to the dense model's, paired over the sequences.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import minilm
import smollm2
from apart import ROOT, compress, table

STRUCTURED = [
    *("channels-20", "flap-uniform-20", "flap-20", "taylor-20", "activation-20", "amp-30", "magnitude-20"),
    *("random-20", "layers-25", "hidden-10", "cfsp-20", "llm-pruner-20", "exact-flops-30"),
]
REPAIRED = ["flap-uniform-20", "flap-20", "taylor-20", "amp-30", "cfsp-20"]
IN_SEQUENCE = ["wanda-sp-20", "sequential-30"]  # block after block, so that their budget is a share of every block
TEXT = {"calibrate.samples": "64", "calibrate.length": "256"}
ALIKE = {
    **TEXT,
    "steps.0.remove": "null",
    "steps.0.until": "null",
    "steps.0.keep": "{params: 84.2%}",  # 20 % of SmolLM2's blocks; the rest are its embeddings
}
ERRORS = 2
"""Standard errors to each side of a figure in compare.json."""


def compared(recipes: Iterable[str], model: Path, settings: dict[str, str]) -> dict[str, Any]:
    """What `compress compare` finds."""
    given = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    with tempfile.TemporaryDirectory() as folder:
        options = ("--no-keep", "--no-latency", "--evaluate", "full", "-q")
        compress("compare", *recipes, model, "-o", folder, *given, *options)
        return json.loads((Path(folder) / "compare.json").read_text())


def show(found: dict[str, Any], mark: str = "") -> None:
    """A markdown table, best first; `mark` stands behind each name."""
    dense, done = found["dense"], [row for row in found["rows"] if "error" not in row]
    whole = dense["quality"]
    rows = []
    for row in sorted(done, key=lambda row: row["quality"]["value"], reverse=whole["higher_is_better"]):
        quality, change = row["quality"], row["quality"]["change"]
        error = (change["high"] - change["low"]) / (2 * ERRORS)
        if whole["higher_is_better"]:
            cells = [f"{quality['value']:.3f} ± {error:.3f}"]
        else:
            cells = [f"{whole['value']:.1f} → {quality['value']:.1f}", f"{change['value']:.2f} ± {error:.2f}"]
        shares = [f"{100 * share:.1f} %" for share in (row["params"] / dense["params"], row["flops"])]
        opens = "no" if "trust_remote_code" in row["opens_with"] else "yes"
        rows.append([row["name"] + mark, *shares, *cells, opens])
    ratio = [] if whole["higher_is_better"] else ["× dense"]
    table(["recipe", "parameters", "FLOPs", whole["name"], *ratio, "ordinary checkpoint"], rows)
    for row in found["rows"]:
        if "error" in row:
            print(f"\n{row['name']}: {row['error']}")


def main(*words: str) -> None:
    """Run and print what is asked for."""
    if words[:1] == ("--read",):
        for file in words[1:]:
            show(json.loads(Path(file).read_text()))
            print()
        return
    if unknown := set(words) - {"contrasts", "minilm"}:
        sys.exit(f"{', '.join(unknown)}: choose contrasts or minilm, or --read and files")
    if words:
        model = minilm.folder() if "minilm" in words else smollm2.folder()
        show(compared([str(ROOT / "recipes" / "contrasts")], model, {}))
        return
    model = smollm2.folder()
    show(compared(STRUCTURED, model, ALIKE))
    print()
    show(compared(REPAIRED, model, {**ALIKE, "steps.0.repair": "least_squares"}), ", least squares")
    print()
    show(compared(IN_SEQUENCE, model, {**TEXT, "steps.0.remove": "20%"}))


if __name__ == "__main__":
    main(*sys.argv[1:])
