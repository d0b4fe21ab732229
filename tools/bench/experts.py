"""Perplexity of small trained mixtures of experts when experts go, by criterion: who chooses best?

    python tools/bench/experts.py          # both models of tools/train_moe.py, trained on first use

All criteria see the same calibration text; perplexity is held-out, in sequences of 256 tokens.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from apart import table
from train_moe import MODELS, folder
from train_moe import __file__ as training
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from compress import console
from compress.evaluate.read import quality_of
from compress.inputs.text import batches
from compress.pipeline import Options, run
from compress.recipe import Calibrate, parse_recipe
from compress.recipe.part import Part

CHOICES = {
    "REAP": "by: reap",
    "REAP without gates": "by: {reap: {gate: false}}",
    "STUN, of a cluster stays who adds most": "by: behaviour, stay: reap",
    "STUN, the nearest to the mean stays": "by: behaviour",
    "the same, router rows and co-activation": "by: {behaviour: {coactivation: 1}}",
    "STUN, merged": "by: {behaviour: {coactivation: 1}}, merge: average",
    "STUN, merged, channels aligned": "by: {behaviour: {coactivation: 1}}, merge: average, align: true",
    "UNCURL, merged by frequency": "by: router_similarity, merge: frequency",
    "UNCURL, channels aligned": "by: router_similarity, merge: frequency, align: true",
    "frequency": "by: frequency",
    "random, mean of 3": "by: {random: {salt: %d}}",
}
RECIPE = "calibrate: {{data: docs, samples: 64, length: 256}}\nsteps:\n- {{prune: experts, {}, remove: {}}}\n"
SHARES = ("25%", "50%")


def main() -> None:
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    console.switch(quiet=True)
    for name in MODELS:
        subprocess.run([sys.executable, training, name], stdout=subprocess.DEVNULL, check=True)
        model = folder(f"{name}-docs")
        rows = [
            [label, *(f"{_mean(model, choice, share):.1f}" for share in SHARES)] for label, choice in CHOICES.items()
        ]
        print(f"\n{name}, dense {_perplexity(model):.1f}\n")
        table(["experts chosen by", *(f"{share} gone" for share in SHARES)], rows)


def _mean(model: Path, choice: str, share: str) -> float:
    salts = range(3) if "%d" in choice else range(1)
    found = [_pruned(model, choice % salt if "%d" in choice else choice, share) for salt in salts]
    return sum(found) / len(found)


def _pruned(model: Path, choice: str, share: str) -> float:
    with tempfile.TemporaryDirectory() as place:
        run(parse_recipe(RECIPE.format(choice, share)), model, Path(place) / "out", Options(evaluate=False))
        return _perplexity(Path(place) / "out")


def _perplexity(model: Path) -> float:
    tokenizer, loaded = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model).eval()
    asked = Calibrate(data=Part("docs", {"split": "test"}), samples=64, length=256)
    return quality_of(loaded, batches(asked, tokenizer, loaded.config)[0]).main.value


if __name__ == "__main__":
    main()
