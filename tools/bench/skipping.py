"""What `recipes/skip-experts.yaml` skips of small trained mixtures, and what it costs in perplexity.

python tools/bench/skipping.py         # both models of tools/train_moe.py, trained on first use
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from apart import ROOT, table
from train_moe import MODELS, folder
from train_moe import __file__ as training
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from compress import console
from compress.evaluate.read import quality_of
from compress.inputs.text import batches
from compress.pipeline import Options, run
from compress.recipe import Calibrate
from compress.recipe.part import Part
from compress.recipe.read import read_recipe
from compress.runtime import attach

HELD_OUT = Calibrate(data=Part("docs", {"split": "test"}), samples=64, length=256)


def main() -> None:
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    console.switch(quiet=True)
    rows = []
    for name in MODELS:
        subprocess.run([sys.executable, training, name], stdout=subprocess.DEVNULL, check=True)
        dense = folder(f"{name}-docs")
        with tempfile.TemporaryDirectory() as place:
            run(read_recipe(ROOT / "recipes/skip-experts.yaml"), dense, Path(place) / "out", Options(evaluate=False))
            tokenizer = AutoTokenizer.from_pretrained(dense)
            model = AutoModelForCausalLM.from_pretrained(Path(place) / "out").eval()
        text = batches(HELD_OUT, tokenizer, model.config)[0]
        before = quality_of(model, text).main.value
        with attach(model) as attached:
            after = quality_of(model, text).main.value
        counts = attached.counts["skip_experts"]
        rows.append([name, f"{counts['skipped'] / counts['visits']:.0%}", f"{before:.1f}", f"{after:.1f}"])
    table(["", "visits skipped", "perplexity of all", "skipping"], rows)


if __name__ == "__main__":
    main()
