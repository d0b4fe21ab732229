"""Trains, once, a small Llama with its tokenizer on the `docs` text and prints its folder in the cache.

A real if modest language model that needs no network: what it loses when it is pruned can be measured. It takes under
two minutes on two processor cores and sees only the split `train` of `docs`, so `test` is there for perplexities.

    python tools/train_llama.py            # prints ~/.cache/compress/models/llama-docs
"""

from __future__ import annotations

import json
import math
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin at barriers halve the speed of a shared machine

import model_cache
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from compress.evaluate.read import quality_of
from compress.inputs.text import batches
from compress.recipe import Calibrate
from compress.recipe.part import Part
from compress.registry import sources

END = "<|endoftext|>"
STACK_RATE = 3e-3  # of stacked experts, by AdamW


@dataclass(frozen=True)
class Settings:
    """Found by experiment to reach the lowest perplexity in the time; 6 of the 8 heads still divide the width."""

    vocabulary: int = 4096
    hidden: int = 384
    layers: int = 4
    heads: int = 8
    groups: int = 4
    channels: int = 768
    length: int = 256
    batch: int = 4
    steps: int = 270
    rate: float = 5e-3  # of matrices, by Muon: at so few steps worth twice AdamW's
    embedding_rate: float = 8e-2  # of embeddings and gains, by AdamW; a tenth of it ends at twice the perplexity
    seconds: float = 95.0  # of all its processors; a slow machine takes fewer steps instead of more time
    seed: int = 0
    layout: str = "calibration"  # how texts are joined; part of the record, so that an older model is made anew


def folder(name: str = "llama-docs") -> Path:
    """The model's folder."""
    return model_cache.folder(name)


def record(name: str) -> Path:
    """JSON with the settings and the result of the training; written last, so that it vouches for the folder."""
    return folder(name).with_name(f"{name}.json")


def ready(settings: Settings, name: str = "llama-docs") -> bool:
    """Whether a model of these settings lies in the cache."""
    known = json.loads(record(name).read_text())["settings"] if record(name).is_file() else None
    return known == asdict(settings) and (folder(name) / "model.safetensors").is_file()


def llama(settings: Settings) -> PreTrainedModel:
    """The model, not trained yet."""
    config = LlamaConfig(
        **shape(settings), intermediate_size=settings.channels, head_dim=settings.hidden // settings.heads
    )
    return LlamaForCausalLM(config)


def shape(settings: Settings) -> dict[str, Any]:
    """What configurations of all architectures share."""
    return {
        "vocab_size": settings.vocabulary,
        "hidden_size": settings.hidden,
        "num_hidden_layers": settings.layers,
        "num_attention_heads": settings.heads,
        "num_key_value_heads": settings.groups,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": None,
    }


def paragraphs(split: str, settings: Settings) -> list[str]:
    """The split's paragraphs, shuffled."""
    texts = list(sources.get("docs").bind({"split": split})())
    random.Random(settings.seed).shuffle(texts)
    return texts


def make_tokenizer(texts: list[str], settings: Settings) -> PreTrainedTokenizerFast:
    """Byte-level BPE; every text begins with the end-of-text token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts[:20_000], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{END} $A", special_tokens=[(END, 0)])  # pyright: ignore[reportAttributeAccessIssue]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=END)


def tokens(
    tokenizer: PreTrainedTokenizerFast, config: PretrainedConfig, split: str, sequences: int, settings: Settings
) -> Tensor:
    """`[sequences, length + 1]` tokens of the split, laid out as calibration and evaluation lay them out."""
    asked = Calibrate(
        data=Part("docs", {"split": split}), samples=sequences, length=settings.length + 1, batch=sequences
    )
    rows, _ = batches(asked, tokenizer, config, settings.seed)
    return rows[0]["input_ids"]


def train(model: PreTrainedModel, rows: Tensor, settings: Settings) -> int:
    """One pass over `rows` `[sequences, length + 1]`, or less when the time is up; returns the steps taken."""
    start, threads = time.process_time(), torch.get_num_threads()
    groups = _groups(model)
    optimizers = [
        torch.optim.Muon(groups["matrices"], lr=settings.rate, ns_steps=3, adjust_lr_fn="match_rms_adamw"),
        *(
            torch.optim.AdamW(groups[name], lr=1.0, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
            for name in ("rest", "stacks")
            if groups[name]
        ),
    ]
    rates = [settings.rate, settings.embedding_rate, STACK_RATE]
    bfloat16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    step = 0
    for step, batch in enumerate(_batches(rows, settings), start=1):
        done = max(step / settings.steps, (time.process_time() - start) / threads / settings.seconds)
        if done > 1:
            break
        share = min(1.0, step / 30) * max(0.02, (1 + math.cos(math.pi * done)) / 2)
        for optimizer, rate in zip(optimizers, rates, strict=False):
            optimizer.param_groups[0]["lr"] = rate * share
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            output = model(input_ids=batch[:, :-1], use_cache=False)
        loss = functional.cross_entropy(output.logits.flatten(0, 1).float(), batch[:, 1:].flatten())
        if (routed := getattr(output, "router_logits", None)) is not None:
            loss = loss + model.config.router_aux_loss_coef * _imbalance(routed, model.config)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        # Muon makes matrices orthogonal in bfloat16, which processors that have none emulate ten times slower.
        with nullcontext() if bfloat16 else patch.object(Tensor, "bfloat16", Tensor.clone):
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
        if step % 50 == 0:
            print(f"step {step} of {settings.steps}: loss {loss.item():.2f}", file=sys.stderr, flush=True)
    return step


def _imbalance(routed: tuple[Tensor, ...], config: PretrainedConfig) -> Tensor:
    """Mean over layers of the load-balancing loss (1 is even) of `routed`, each layer's logits `[tokens, experts]`.

    Layer by layer, as experts that no token visits learn nothing; over all layers at once, as transformers takes it,
    one layer's idle experts hide behind another's busy ones.
    """
    experts = routed[0].shape[-1]
    parts = [load_balancing_loss_func((logits,), experts, config.num_experts_per_tok) for logits in routed]
    return torch.stack([torch.as_tensor(part) for part in parts]).mean()


def _groups(model: PreTrainedModel) -> dict[str, list[nn.Parameter]]:
    """Parameters by the optimizer they go well with; stacked experts are no matrices to Muon."""
    groups: dict[str, list[nn.Parameter]] = {"matrices": [], "stacks": [], "rest": []}
    for name, parameter in model.named_parameters():
        matrix = parameter.ndim == 2 and "embed" not in name
        groups["matrices" if matrix else "stacks" if parameter.ndim == 3 else "rest"].append(parameter)
    return groups


def _batches(rows: Tensor, settings: Settings) -> Iterator[Tensor]:
    yield from rows[: settings.steps * settings.batch].split(settings.batch)


def make(settings: Settings, name: str = "llama-docs", build: Callable[[Any], PreTrainedModel] = llama) -> None:
    """Train and put the model, its tokenizer and a record of the training into the cache."""
    begin = time.monotonic()
    torch.manual_seed(settings.seed)
    seen = paragraphs("train", settings)
    tokenizer = make_tokenizer(seen, settings)
    model = build(settings)
    model.set_attn_implementation("eager")  # quicker backwards on a processor than the fused kernel
    rows = tokens(tokenizer, model.config, "train", settings.steps * settings.batch, settings)
    steps = train(model, rows, settings)
    rows = tokens(tokenizer, model.config, "test", 100, settings)[:, :-1]
    found = quality_of(model.eval(), [{"input_ids": part} for part in rows.split(10)]).record["perplexity"]
    seconds = round(time.monotonic() - begin, 1)
    result = {"settings": asdict(settings), "steps": steps, "perplexity": found, "seconds": seconds}
    _store(model, tokenizer, result, name)
    print(f"{steps} steps in {seconds} s; held-out perplexity {found['value']:.2f}", file=sys.stderr)


def _store(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, result: dict, name: str) -> None:
    """The model's folder, then the record that vouches for it."""
    model_cache.store(name, model, tokenizer)
    record(name).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    chosen = Settings()
    if not ready(chosen):
        print("training a small Llama once, under two minutes …", file=sys.stderr, flush=True)
        make(chosen)
    print(folder())
