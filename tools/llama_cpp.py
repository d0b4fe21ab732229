"""A pruned model of uniform widths in llama.cpp: its own converter, its own runtime, the same greedy tokens?

    python -m venv peer && peer/bin/pip install llama-cpp-python          # compiles for a quarter of an hour
    pip download --no-deps --no-binary :all: llama-cpp-python && tar xf llama_cpp_python-*.tar.gz
    pip install gguf sentencepiece                                        # for the converter
    python tools/llama_cpp.py peer/bin/python llama_cpp_python-*/vendor/llama.cpp

Prunes the small Llama of `train_llama.py` by recipes/magnitude-20.yaml, which keeps whole heads in every layer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from train_llama import __file__ as training
from train_llama import folder
from transformers import AutoModelForCausalLM

from compress.pipeline import Options, run

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "magnitude-20.yaml"
PROMPT, STEPS = [5, 77, 300, 1200, 41, 9], 64
CONVERT = """
import runpy, sys
sys.path[:0] = [".", "gguf-py"]
import conversion.base
# The converter knows tokenizers by a hash of what they give, and ours is not on its list; tokens go in as numbers here.
conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"
sys.argv = ["convert_hf_to_gguf.py", *sys.argv[1:]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
GENERATE = """
import json, sys
import numpy as np
from llama_cpp import Llama
file, prompt, steps = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
model, written = Llama(file, n_ctx=256, logits_all=True, verbose=False), []
model.eval(prompt)
for _ in range(steps):
    written.append(int(np.argmax(model.scores[model.n_tokens - 1])))
    model.eval(written[-1:])
print(json.dumps(written))
"""


def main(peer: str, source: Path, place: Path) -> bool:
    subprocess.run([sys.executable, training], stdout=subprocess.DEVNULL, check=True)
    run(RECIPE, folder(), place / "out", Options(evaluate=False))
    model: Any = AutoModelForCausalLM.from_pretrained(place / "out").eval()
    given: dict[str, Any] = {"max_new_tokens": STEPS, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    wanted = model.generate(torch.tensor([PROMPT]), **given)[0, len(PROMPT) :].tolist()
    file = place / "model.gguf"
    command = [sys.executable, "-c", CONVERT, place / "out", "--outtype", "f32", "--outfile", file]
    subprocess.run(list(map(str, command)), cwd=source, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    command = [peer, "-c", GENERATE, str(file), json.dumps(PROMPT), str(STEPS)]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])
    same = sum(one == other for one, other in zip(found, wanted, strict=True))
    print(f"{same} of {STEPS} greedy tokens are those of transformers")
    return found == wanted


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(not main(sys.argv[1], Path(sys.argv[2]), Path(temporary)))
