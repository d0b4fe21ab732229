"""Wanda and SparseGPT against llm-compressor on the same model and calibration tokens: time and memory, in turns.

    python -m venv peer && peer/bin/pip install torch==2.13.0 llmcompressor==0.14
    python tools/bench/versus_llm_compressor.py peer/bin/python

The model is a random Llama of 116 M parameters, the tokens are random (32 × 256). Every run is a process of its own,
imports, reading and writing included. The outputs of the two are compared with the dense model's on other tokens: the
relative error of the logits stands in for perplexity, which a random model has none of.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from apart import compress, median, part, run, table, verdict

SHAPE = {"layers": 12, "hidden": 768, "channels": 2048, "heads": 12, "groups": 12, "vocabulary": 20000}
RECIPE = """\
calibrate: {{data: random, samples: 32, length: 256}}
steps:
- {{prune: weights, by: {}, {}, propagate: true_sequential}}
"""
CASES = {
    "Wanda 50 %": ("wanda", "remove: 50%", "0:0"),
    "Wanda 2:4": ("wanda", "pattern: '2:4'", "2:4"),
    "SparseGPT 50 %": ("sparsegpt", "remove: 50%", "0:0"),
}
THEIRS = """
import sys, torch
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
folder, tokens, out, method, pattern = sys.argv[1:]
rows = torch.load(tokens)
data = Dataset.from_dict({"input_ids": rows.tolist(), "attention_mask": torch.ones_like(rows).tolist()})
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
cls = WandaPruningModifier if method == "wanda" else SparseGPTModifier
modifier = cls(sparsity=0.5, mask_structure=pattern, targets=["Linear"], ignore=["lm_head"])
words = models.WordLevel({"<unk>": 0}, unk_token="<unk>")  # it asks for a tokenizer, though the data is tokens
processor = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), unk_token="<unk>", pad_token="<unk>")
limits = {"num_calibration_samples": len(rows), "max_seq_length": rows.shape[1]}
oneshot(model=model, processor=processor, dataset=data, recipe=modifier, **limits)
model.save_pretrained(out)
"""


def make(folder: Path) -> dict:
    """The dense model and, beside it, the tokens that the recipe calibrates on."""
    import torch
    from random_llama import write
    from transformers import AutoConfig

    from compress.calibrate.data import batches
    from compress.recipe.read import parse_recipe

    size = write(folder / "dense", **SHAPE)
    asked = parse_recipe(RECIPE.format("wanda", "remove: 50%")).calibrate
    rows, _ = batches(asked, None, AutoConfig.from_pretrained(folder / "dense"))
    torch.save(torch.cat([batch["input_ids"] for batch in rows]), folder / "tokens.pt")
    return {"bytes": size}


def error(folder: Path) -> dict:
    """Relative error of both outputs' logits on unseen random tokens, and their shares of zeros."""
    import torch
    from transformers import AutoModelForCausalLM

    ids = torch.randint(0, SHAPE["vocabulary"], (4, 128), generator=torch.Generator().manual_seed(99))
    found = {}
    with torch.no_grad():
        dense = AutoModelForCausalLM.from_pretrained(folder / "dense")(ids).logits
        for name in ("ours", "theirs"):
            model = AutoModelForCausalLM.from_pretrained(folder / name)
            found[name] = float((model(ids).logits - dense).norm() / dense.norm())
            weight = model.model.layers[3].mlp.up_proj.weight
            found[f"{name} zeros"] = float((weight == 0).float().mean())
    return found


PARTS = {"make": make, "error": error}


def main(peer: str, turns: int) -> None:
    place = Path(tempfile.mkdtemp(prefix="bench-llmc-"))
    try:
        part(__file__, "make", place)
        rows = []
        for label, (method, budget, pattern) in CASES.items():
            recipe = place / "recipe.yaml"
            recipe.write_text(RECIPE.format(method, budget))
            ours, theirs = [], []
            for _ in range(turns):  # in turns: whatever else the machine does falls on both
                shutil.rmtree(place / "theirs", ignore_errors=True)
                arguments = (place / "dense", place / "tokens.pt", place / "theirs", method, pattern)
                theirs.append(run([peer, "-c", THEIRS, *arguments], {"PYTHONPATH": ""}))
                cache = {"COMPRESS_CACHE": str(place / "cache")}
                options = ("--force", "--quiet", "--no-evaluate")
                ours.append(compress(recipe, place / "dense", place / "ours", *options, environment=cache))
                shutil.rmtree(place / "cache", ignore_errors=True)
            apart, _ = part(__file__, "error", place)
            time = median(one.seconds for one in ours) / median(one.seconds for one in theirs)
            peak = max(one.peak for one in ours) / max(one.peak for one in theirs)
            seconds = f"{median(one.seconds for one in theirs):.0f} s → {median(one.seconds for one in ours):.0f} s"
            both = f"{apart['theirs']:.4f}, {apart['ours']:.4f}"
            rows.append(
                [label, seconds, f"{time:.2f} ({verdict(time, 0.5)})", f"{peak:.2f} ({verdict(peak, 0.5)})", both]
            )
            print(rows[-1], apart, file=sys.stderr, flush=True)
        table(["", "theirs → ours", "time", "peak memory", "error of the logits: theirs, ours"], rows)
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in PARTS:
        print(json.dumps(PARTS[sys.argv[1]](Path(sys.argv[2]))))
    else:
        main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1)
