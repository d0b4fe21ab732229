"""Held-out perplexity by criterion, allocator and repair, next to an independent re-run of the published formulas.

    python tools/bench/criteria.py > criteria.md
    python tools/bench/criteria.py cfsp taylor  # the rows of these criteria alone

The model is the small Llama of `tools/train_llama.py` (trained on first use). All methods see the same calibration
sequences of the split `train` of `docs`; perplexities are of the split `test`. Each cell is the dense model whose
removed heads and channels are masked, which is what a pruned folder computes (verified when one is written).
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin at barriers halve a shared machine's speed
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import reference
import torch
import train_llama
from apart import table
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from compress.allocate.pools import Widths
from compress.allocate.spend import allocate
from compress.calibrate.collect import collect
from compress.checkpoint.open import open_checkpoint
from compress.evaluate.read import quality_of
from compress.graph.families import Graph
from compress.graph.trace import trace
from compress.inputs.choose import inputs_of
from compress.inputs.text import batches
from compress.model.build import empty_model, load_config
from compress.recipe import Calibrate
from compress.recipe.part import Part
from compress.registry import allocators, criteria, repairs
from compress.score.score import needed, score

SHARES = (0.2, 0.5)
SAMPLES, HELD_OUT = 128, 64
LENGTH = train_llama.Settings().length
REPAIRS = ("none", "bias", "least_squares")
SEEDS = range(3)  # of random
Row = tuple[str, dict[str, Any], str, Widths]  # criterion, its arguments, allocator, widths
ROWS: list[Row] = [
    ("random", {}, "uniform", "uniform"),
    ("magnitude", {"norm": "l1"}, "uniform", "uniform"),
    ("magnitude", {"norm": "l2"}, "uniform", "uniform"),
    ("activation", {}, "uniform", "uniform"),
    ("wanda", {}, "uniform", "uniform"),
    ("amp", {}, "uniform", "uniform"),
    ("cfsp", {}, "uniform", "uniform"),
    ("taylor", {}, "uniform", "uniform"),
    ("taylor", {"order": "second"}, "uniform", "uniform"),
    ("taylor", {"order": "mixed"}, "uniform", "uniform"),
    ("taylor_vector", {}, "uniform", "uniform"),
    ("fluctuation", {}, "uniform", "uniform"),
    ("fluctuation", {"metric": "ifv"}, "standardized", "uniform"),
    ("fluctuation", {"metric": "wifn"}, "standardized", "uniform"),
    ("fluctuation", {}, "standardized", "uniform"),
    ("fluctuation", {}, "standardized", "per-layer"),
    ("taylor", {}, "global", "uniform"),
    ("taylor", {}, "global", "per-layer"),
]
KINDS = ("heads", "channels")


class Bench:
    """The dense model, what was gathered of it, and the held-out text."""

    def __init__(self, folder: Path, asked: list[Row]) -> None:
        self.checkpoint = open_checkpoint(folder)
        config = load_config(self.checkpoint)
        model = empty_model(config)
        self.graph: Graph = trace(model, inputs_of(model).example())
        self.families = self.graph.of_kind(*KINDS)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        self.rows, held_out = (
            self._rows(*some, tokenizer, config) for some in (("train", SAMPLES), ("test", HELD_OUT))
        )
        given, self.held_out = ([{"input_ids": part} for part in rows.split(8)] for rows in (self.rows, held_out))
        self.model: nn.Module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.state = self.model.state_dict()
        consumers = {m.tensor for f in self.families for m in f.members if m.role == "in"}
        wanted: dict[str, set[str]] = {name: set(consumers) for name in ("input_mean", "input_gram")}
        for name, arguments, _, _ in asked:
            scored = self._scored(name)
            for statistic, keys in needed(self.graph, scored, criteria.get(name), arguments).items():
                wanted.setdefault(statistic, set()).update(keys)
        self.stats = collect(self.checkpoint, self.graph, wanted, given)

    def cell(self, row: Row, share: float, seed: int = 0) -> tuple[list[float], float]:
        """Perplexity under each of REPAIRS, and the share that is gone."""
        name, arguments, allocator, widths = row
        families, entry = self._scored(name), allocators.get(allocator)
        scores = score(
            self.graph, families, criteria.get(name), self.stats, self.state.__getitem__,
            arguments=arguments, normalize=entry.meta.normalize, seed=seed,
        )  # fmt: skip
        now = self.graph.parameters()
        free = now - self.graph.parameters({family.name: np.zeros(family.size, bool) for family in families})
        kept = allocate(self.graph, families, scores, allocator=entry, remove=share, widths=widths)
        found = [self.perplexity(self._pruned(kept, repair)) for repair in REPAIRS]
        return found, (now - self.graph.parameters(kept)) / free

    def perplexity(self, model: nn.Module) -> float:
        return quality_of(model, self.held_out).main.value

    def _pruned(self, kept: Mapping[str, Any], repair: str) -> nn.Module:
        """The dense model with zeros where consumers lost inputs, the rest of their weights repaired."""
        model = copy.deepcopy(self.model)
        entry = repairs.get(repair) if repair != "none" else None
        consumers = {m.tensor: m.dim for name in kept for m in self.graph.families[name].members if m.role == "in"}
        for tensor, dim in consumers.items():
            module = model.get_submodule(tensor.rpartition(".")[0])
            assert isinstance(module, nn.Linear)
            keep = torch.from_numpy(self.graph.masks(tensor, kept)[dim])
            weight: Tensor = module.weight.detach()
            if entry is not None:
                given = {need: self.stats[need][tensor] for need in entry.meta.needs}
                weight, bias = entry.bind({})(weight, None, keep, **given)
                if bias is not None:
                    module.bias = nn.Parameter(bias)
            module.weight = nn.Parameter(weight * keep)
        return model

    def _scored(self, name: str) -> list:
        return [family for family in self.families if name != "cfsp" or family.kind == "channels"]

    @staticmethod
    def _rows(split: str, samples: int, tokenizer: Any, config: Any) -> Tensor:
        """`[samples, LENGTH]` tokens."""
        asked = Calibrate(data=Part("docs", {"split": split}), samples=samples, length=LENGTH, batch=samples)
        return batches(asked, tokenizer, config)[0][0]["input_ids"]


def main(*names: str) -> None:
    torch.set_grad_enabled(False)
    if unknown := set(names) - {row[0] for row in ROWS}:
        raise SystemExit(f"no rows of {', '.join(sorted(unknown))}; known: {', '.join(sorted({r[0] for r in ROWS}))}")
    asked = [row for row in ROWS if not names or row[0] in names]
    subprocess.run([sys.executable, train_llama.__file__], stdout=subprocess.DEVNULL, check=True)
    bench = Bench(train_llama.folder(), asked)
    print(
        f"Dense: {bench.perplexity(bench.model):.2f}. "
        f"Calibration {SAMPLES} × {LENGTH} tokens, held out {HELD_OUT} × {LENGTH}."
    )
    for share in SHARES:
        print(f"\n{share:.0%} of the heads' and channels' parameters\n")
        rows = []
        for row in asked:
            name, arguments, allocator, widths = row
            several = [bench.cell(row, share, seed) for seed in (SEEDS if name == "random" else [0])]
            found = [mean(values) for values in zip(*(cell for cell, _ in several), strict=True)]
            label = name + "".join(f" {value if isinstance(value, str) else key}" for key, value in arguments.items())
            label += " (channels alone)" if name == "cfsp" else ""
            label += f" (mean of {len(SEEDS)})" if name == "random" else ""
            gone = mean(gone for _, gone in several)
            print(share, label, allocator, widths, found, file=sys.stderr, flush=True)
            rows.append([label, allocator, widths, f"{gone:.1%}", *(f"{value:.1f}" for value in found)])
        best = min(float(cell) for row in rows for cell in row[4:])
        rows = [[f"**{cell}**" if cell == f"{best:.1f}" else cell for cell in row] for row in rows]
        table(["criterion", "allocator", "widths", "gone", *REPAIRS], rows)
        if names:
            continue
        print()
        rows = []
        for name, method in reference.METHODS.items():
            model, masks = method(bench.model, bench.rows, share)
            gone = reference.Shape.of(bench.model).removed(masks)
            rows.append([name, f"{gone:.1%}", f"{bench.perplexity(model):.1f}"])
        table(["re-run of the published formulas", "gone", "perplexity"], rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
