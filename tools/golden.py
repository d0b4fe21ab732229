"""Fingerprints of what the shipped recipes write, to compare before and after a change that should change nothing.

    python tools/golden.py before.json            # every recipe on its models, three of them on two processes too
    python tools/golden.py after.json --against before.json

Models: a random Llama and a random Mixtral (for recipes about experts), and MiniLM where it is installed. A fingerprint
covers every weight and the configuration. They hold for one machine and one set of library versions only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # sums in one order

import torch
import transformers

sys.path.insert(0, str(Path(__file__).parent))

RECIPES = Path(__file__).parent.parent / "recipes"
TINY = ["calibrate.data=random", "calibrate.samples=16", "calibrate.length=32"]
EXPERTS = ("reap-50", "skip-experts", "stun-40", "uncurl")
LEFT_OUT = ("darex", "sd-47-35")  # need several models
TOGETHER = ("flap-20", "wanda-50", "sequential-30")  # on two processes too
CORE = dict(vocab_size=96, hidden_size=32, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64)
DECODERS = {
    "llama": ("Llama", dict(num_hidden_layers=8, intermediate_size=48, tie_word_embeddings=True)),
    "mixtral": ("Mixtral", dict(num_hidden_layers=3, intermediate_size=24, num_local_experts=8, num_experts_per_tok=2)),
}


def make(name: str, folder: Path) -> Path:
    """A random model of the kind `name`."""
    kind, shape = DECODERS[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**CORE, **shape)
    getattr(transformers, f"{kind}ForCausalLM")(config).save_pretrained(folder)
    return folder


def fingerprint(folder: Path) -> str:
    """Of all weights and the configuration that a model folder holds."""
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("*.safetensors"), folder / "config.json"]):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def write(recipe: str, model: Path, out: Path, processes: int = 1) -> str:
    """The fingerprint of what `recipe` makes of `model`, or the error that it ends in."""
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--standalone"]
    command = [sys.executable, *(torchrun if processes > 1 else []), "-m", "compress", f"{RECIPES / recipe}.yaml"]
    settings = [part for value in TINY for part in ("--set", value)]
    done = subprocess.run(
        [*command, str(model), str(out), *settings, "--no-evaluate", "-q"],
        env={**os.environ, "COMPRESS_CACHE": str(out.parent / "cache")},
        capture_output=True,
        text=True,
    )
    return fingerprint(out) if done.returncode == 0 else f"exit {done.returncode}: {done.stderr.strip()[-200:]}"


def main() -> int:
    """Print what differs; exit status 1 where anything does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--only", nargs="*", help="recipes by name")
    given = parser.parse_args()
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as made:
        models = {name: make(name, Path(made) / name) for name in DECODERS}
        try:
            import minilm

            models["minilm"] = minilm.folder()
        except SystemExit as error:
            print(error)
        for path in sorted(RECIPES.glob("*.yaml")):
            recipe = path.stem
            if recipe in LEFT_OUT or (given.only and recipe not in given.only):
                continue
            for model in ["mixtral"] if recipe in EXPERTS else [name for name in models if name != "mixtral"]:
                for processes in (1, 2) if recipe in TOGETHER and model == "llama" else (1,):
                    key = f"{recipe} {model}" + (f" x{processes}" if processes > 1 else "")
                    with tempfile.TemporaryDirectory() as out:
                        found[key] = write(recipe, models[model], Path(out) / "out", processes)
                    print(f"{key}: {found[key]}", flush=True)
    given.file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if given.against is None:
        return 0
    before = json.loads(given.against.read_text(encoding="utf-8"))
    different = [key for key in found if found[key] != before.get(key)]
    print(f"{len(found) - len(different)} of {len(found)} are the same" + "".join(f"\n  {key}" for key in different))
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
