"""What `compress auto` makes of SmolLM2-135M in llama.cpp: its own converter, its own runtime, the same text?

    python -m venv peer && peer/bin/pip install xllamacpp                 # llama.cpp, built
    pip download --no-deps --no-binary :all: llama-cpp-python && tar xf llama_cpp_python-*.tar.gz
    pip install gguf sentencepiece                                        # for the converter
    python tools/llama_cpp.py peer/bin/python llama_cpp_python-*/vendor/llama.cpp [FOLDER]

FOLDER, pruned already, is taken in place of a new one; that of `compress vocab` opens too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import smollm2
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXTS = ("The opposite of hot is", "The first president of the United States was", "def add(a, b):")
STEPS = 64
CONVERT = """
import runpy, sys
sys.path[:0] = [".", "gguf-py"]
import conversion.base
# The converter knows tokenizers by a hash of what they give, and a rewritten one is not on its list; tokens go in as
# numbers here.
conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "smollm"
sys.argv = ["convert_hf_to_gguf.py", *sys.argv[1:]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
GENERATE = """
import json, sys
import xllamacpp
file, prompts, steps = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel, params.warmup = file, 256, 1, False
server = xllamacpp.Server(params)
for prompt in prompts:
    asked = {"prompt": prompt, "max_tokens": steps, "temperature": 0, "top_k": 1, "ignore_eos": True}
    print(json.dumps(server.handle_completions(asked)["choices"][0]["text"]))
"""


def main(peer: str, source: Path, pruned: Path | None, place: Path) -> bool:
    """Print what both write, greedily; whether it is the same."""
    if pruned is None:
        pruned = place / "out"
        command = ["auto", smollm2.folder(), pruned, "--remove", "20%", "--no-evaluate"]
        subprocess.run([sys.executable, "-m", "compress", *map(str, command)], check=True)
    model: Any = AutoModelForCausalLM.from_pretrained(pruned, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(pruned)
    prompts = [tokenizer(text)["input_ids"] for text in TEXTS]
    file = place / "model.gguf"
    command = [sys.executable, "-c", CONVERT, pruned, "--outtype", "f32", "--outfile", file]
    subprocess.run(list(map(str, command)), cwd=source, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    command = [peer, "-c", GENERATE, str(file), json.dumps(prompts), str(STEPS)]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip().splitlines()
    # Neither may end a text.
    ends = [tokenizer.convert_tokens_to_ids(name) for name in ("<|im_end|>", "<|endoftext|>")]
    given: dict[str, Any] = {"max_new_tokens": STEPS, "do_sample": False, "pad_token_id": 0, "suppress_tokens": ends}
    alike = True
    for text, prompt, line in zip(TEXTS, prompts, lines[-len(prompts) :], strict=True):
        wanted = tokenizer.decode(model.generate(torch.tensor([prompt]), **given)[0, len(prompt) :])
        print(f"{text} …\n  transformers: {wanted!r}\n  llama.cpp:    {json.loads(line)!r}")
        alike &= json.loads(line) == wanted
    print("the same" if alike else "NOT the same")
    return alike


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        given = Path(sys.argv[3]) if len(sys.argv) > 3 else None
        sys.exit(not main(sys.argv[1], Path(sys.argv[2]), given, Path(temporary)))
