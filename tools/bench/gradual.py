"""Held-out perplexity of small Llamas pruned while they are trained from scratch, by schedule.

    python tools/bench/gradual.py > gradual.md          # 90 % of the weights inside blocks
    python tools/bench/gradual.py 0.5 > gradual.md

The model, its tokenizer and its text are those of `tools/train_llama.py`. All runs begin at the same weights and see
the same text in the same order, with warm-up and a cosine. The average is that of the active parameters inside
blocks over the run, of the dense ones.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin at barriers halve a shared machine's speed
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import train_llama
from apart import table
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel, PrinterCallback, Trainer, TrainingArguments, set_seed

from compress.evaluate.read import quality_of
from compress.sparse.masks import smallest
from compress.train.gradual import GradualPruning, prunable

STEPS, HELD_OUT = 240, 64
EVERY = 6
MATRIX_RATE = 3e-3
SETTINGS = train_llama.Settings(steps=STEPS)
SCHEDULES = {
    "gradual, 25 % to 75 %": (0.25, 0.75),
    "gradual, 0 % to 50 %": (0.0, 0.5),
    "gradual, 50 % to 100 %": (0.5, 1.0),
    "at once, half way": (0.475, 0.5),
}


class Bench:
    """The text, and what a run on it comes to."""

    def __init__(self) -> None:
        subprocess.run([sys.executable, train_llama.__file__], stdout=subprocess.DEVNULL, check=True)
        tokenizer = AutoTokenizer.from_pretrained(train_llama.folder())
        config = train_llama.llama(SETTINGS).config
        sequences = STEPS * SETTINGS.batch
        self.seen = train_llama.tokens(tokenizer, config, "train", sequences, SETTINGS)[:, :-1]
        held_out = train_llama.tokens(tokenizer, config, "test", HELD_OUT, SETTINGS)[:, :-1]
        self.held_out = [{"input_ids": rows} for rows in held_out.split(8)]

    def trained(self, *callbacks: GradualPruning) -> PreTrainedModel:
        set_seed(SETTINGS.seed)
        model = train_llama.llama(SETTINGS)
        model.set_attn_implementation("eager")  # quicker backwards on a processor than the fused kernel
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder, max_steps=STEPS, per_device_train_batch_size=SETTINGS.batch, 
                warmup_steps=STEPS // 10, lr_scheduler_type="cosine", save_strategy="no",
                report_to="none", disable_tqdm=True, use_cpu=True, logging_strategy="no", seed=SETTINGS.seed,
            )  # fmt: skip
            texts = [{"input_ids": row, "labels": row} for row in self.seen]
            optimizers = optimizer(model), None
            trainer = Trainer(model, arguments, train_dataset=texts, callbacks=[*callbacks], optimizers=optimizers)
            trainer.remove_callback(PrinterCallback)  # stdout is the table's
            trainer.train()
        return model.eval()

    def perplexity(self, model: PreTrainedModel) -> str:
        return f"{quality_of(model, self.held_out).main.value:.1f}"


def optimizer(model: PreTrainedModel) -> torch.optim.Optimizer:
    """AdamW; embeddings and gains take large steps, without which so short a run learns little."""
    matrices = set(prunable(model).values())
    rest = [parameter for parameter in model.parameters() if parameter not in matrices]
    groups = [{"params": [*matrices], "lr": MATRIX_RATE}, {"params": rest, "lr": SETTINGS.embedding_rate}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0, fused=True)


def zeros(model: PreTrainedModel) -> str:
    """The share of zeros among the weights inside blocks."""
    weights = prunable(model).values()
    return f"{sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights):.1%}"


@torch.no_grad()
def prune_at_once(model: PreTrainedModel, share: float) -> None:
    """Magnitude pruning of each matrix."""
    for weight in prunable(model).values():
        gone: Tensor = smallest(weight.abs(), share, "layer")
        weight.masked_fill_(gone, 0)


def main(sparsity: float) -> None:
    bench = Bench()
    dense = bench.trained()
    rows = [["dense", zeros(dense), "100.0%", bench.perplexity(dense)]]
    prune_at_once(dense, sparsity)
    rows.append(["at once, after the training", zeros(dense), "100.0%", bench.perplexity(dense)])
    for label, (start, end) in SCHEDULES.items():
        pruning = GradualPruning(sparsity, start=start, end=end, every=EVERY)
        model = bench.trained(pruning)
        rows.append([label, zeros(model), f"{1 - pruning.ramp.mean:.1%}", bench.perplexity(model)])
        print(f"{label}: {rows[-1][-1]}", file=sys.stderr, flush=True)
    table(["pruned", "zero", "average", "perplexity"], rows)


if __name__ == "__main__":
    main(float(sys.argv[1]) if sys.argv[1:] else 0.9)
