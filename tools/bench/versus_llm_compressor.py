"""Wanda and SparseGPT against llm-compressor on the same model and calibration tokens: time and memory, in turns.

    python -m venv peer && peer/bin/pip install torch==2.13.0 llmcompressor==0.14
    python tools/bench/versus_llm_compressor.py peer/bin/python [turns [LAYERS HIDDEN CHANNELS]]

The model is a random Llama of 116 M parameters, or of the shape given, and the tokens are random (32 × 256). Every run
is a process of its own, imports, reading and writing included. What a random model cannot tell, held-out perplexity, is
that of the small trained Llama (`tools/train_llama.py`, trained on first use), pruned by both on the same 32 × 256
tokens of real text.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from apart import Run, compress, median, part, run, table, verdict

SHAPE = (12, 768, 2048)  # layers, hidden, channels; heads are 64 wide, the vocabulary has 20,000 words
RECIPE = """\
calibrate: {{data: {}, samples: 32, length: 256}}
steps:
- {{prune: weights, by: {}, {}, propagate: true_sequential}}
"""
MODELS = {"random": "large", "docs": "trained"}  # what a model calibrates on, and the name of its folder
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
modifier = cls(sparsity=0.5, mask_structure=pattern, targets=["Linear"], ignore=["re:.*lm_head"])
words = models.WordLevel({"<unk>": 0}, unk_token="<unk>")  # it asks for a tokenizer, though the data is tokens
processor = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), unk_token="<unk>", pad_token="<unk>")
limits = {"num_calibration_samples": len(rows), "max_seq_length": rows.shape[1]}
oneshot(model=model, processor=processor, dataset=data, recipe=modifier, **limits)
model.save_pretrained(out)
"""


def make(folder: Path, layers: int, hidden: int, channels: int) -> dict:
    """The dense models and, beside each, the tokens that the recipe calibrates on."""
    from random_llama import write
    from train_llama import __file__ as training
    from train_llama import folder as trained

    subprocess.run([sys.executable, training], stdout=subprocess.DEVNULL, check=True)
    for name in MODELS.values():
        (folder / name).mkdir()
    shape = {"layers": layers, "hidden": hidden, "channels": channels, "vocabulary": 20000}
    size = write(folder / MODELS["random"] / "dense", heads=hidden // 64, groups=hidden // 64, **shape)
    (folder / MODELS["docs"] / "dense").symlink_to(trained())
    for data, name in MODELS.items():
        _tokens(data, folder / name)
    return {"bytes": size}


def _tokens(data: str, folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoTokenizer

    from compress.inputs.text import batches
    from compress.recipe.read import parse_recipe

    asked = parse_recipe(RECIPE.format(data, "wanda", "remove: 50%")).calibrate
    tokenizer = None if data == "random" else AutoTokenizer.from_pretrained(folder / "dense")
    rows, _ = batches(asked, tokenizer, AutoConfig.from_pretrained(folder / "dense"))
    torch.save(torch.cat([batch["input_ids"] for batch in rows]), folder / "tokens.pt")


def quality(folder: Path) -> dict:
    """Held-out perplexity of the dense model and of both outputs, and these outputs' shares of zeros."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from compress.evaluate.read import quality_of
    from compress.inputs.text import batches
    from compress.recipe import Calibrate
    from compress.recipe.part import Part

    tokenizer = AutoTokenizer.from_pretrained(folder / "dense")
    asked = Calibrate(data=Part("docs", {"split": "test"}), samples=100, length=256)
    found = {}
    for name in ("dense", "theirs", "ours"):
        model = AutoModelForCausalLM.from_pretrained(folder / name).eval()
        found[name] = quality_of(model, batches(asked, tokenizer, model.config)[0]).main.value
        found[f"{name} zeros"] = float((model.model.layers[3].mlp.up_proj.weight == 0).float().mean())
    return found


PARTS = {"make": make, "quality": quality}


def both(place: Path, data: str, case: tuple[str, str, str], peer: str) -> tuple[Run, Run]:
    """Theirs, then ours, on the model and tokens in `place`."""
    method, budget, pattern = case
    recipe = place / "recipe.yaml"
    recipe.write_text(RECIPE.format(data, method, budget))
    shutil.rmtree(place / "theirs", ignore_errors=True)
    arguments = (place / "dense", place / "tokens.pt", place / "theirs", method, pattern)
    theirs = run([peer, "-c", THEIRS, *arguments], {"PYTHONPATH": ""})
    cache = {"COMPRESS_CACHE": str(place / "cache")}
    options = ("--force", "--quiet", "--no-evaluate")
    ours = compress(recipe, place / "dense", place / "ours", *options, environment=cache)
    shutil.rmtree(place / "cache", ignore_errors=True)
    return theirs, ours


def main(peer: str, turns: int, shape: tuple[int, ...]) -> None:
    place = Path(tempfile.mkdtemp(prefix="bench-llmc-"))
    try:
        part(__file__, "make", place, *map(str, shape))
        rows = []
        for label, case in CASES.items():
            # In turns: whatever else the machine does falls on both.
            runs = [both(place / MODELS["random"], "random", case, peer) for _ in range(turns)]
            both(place / MODELS["docs"], "docs", case, peer)
            found, _ = part(__file__, "quality", place / MODELS["docs"])
            seconds = [median(one.seconds for one in some) for some in zip(*runs, strict=True)]
            cpu = [median(one.cpu for one in some) for some in zip(*runs, strict=True)]
            peaks = [max(one.peak for one in some) for some in zip(*runs, strict=True)]
            time, peak, worse = seconds[1] / seconds[0], peaks[1] / peaks[0], found["ours"] / found["theirs"]
            rows.append(
                [
                    label,
                    f"{seconds[0]:.0f} s → {seconds[1]:.0f} s",
                    f"{time:.2f} ({verdict(time, 0.5)})",
                    f"{cpu[1] / cpu[0]:.2f}",
                    f"{peak:.2f} ({verdict(peak, 0.5)})",
                    f"{found['theirs']:.1f} → {found['ours']:.1f}",
                    f"{worse:.3f} ({verdict(worse, 1.005)})",
                ]
            )
            print(rows[-1], found, file=sys.stderr, flush=True)
        table(["", "theirs → ours", "time", "processor time", "peak memory", "perplexity", "ratio"], rows)
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in PARTS:
        print(json.dumps(PARTS[sys.argv[1]](Path(sys.argv[2]), *map(int, sys.argv[3:]))))
    else:
        main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1, tuple(map(int, sys.argv[3:6])) or SHAPE)
