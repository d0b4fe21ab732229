"""Held-out quality by criterion, allocator and repair, next to an independent re-run of the published formulas.

    python tools/bench/criteria.py > criteria.md           # SmolLM2-135M: perplexity
    python tools/bench/criteria.py --model minilm          # MiniLM: rank correlation of text pairs with the dense model
    python tools/bench/criteria.py taylor wanda --share 20%  # the rows of these criteria alone, at one size
    python tools/bench/criteria.py obs wanda --kinds channels --repairs least_squares per_input  # of channels alone

All methods see the same calibration sequences of `docs`; quality is of `manuals`. Each cell is the dense model whose
removed heads and channels are masked, which is what a pruned folder computes (verified when one is written). An hour on
one core for all rows of SmolLM2 at one size.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin at barriers halve a shared machine's speed
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import minilm
import numpy as np
import reference
import smollm2
import torch
from apart import table
from torch import nn

from compress.allocate.pools import Widths
from compress.allocate.spend import allocate
from compress.calibrate.collect import collect
from compress.checkpoint.open import open_checkpoint
from compress.evaluate.load import held_out, load_model
from compress.evaluate.read import read_all
from compress.model.model import Model
from compress.recipe import Calibrate
from compress.registry import allocators, criteria, repairs
from compress.score.score import needed, score

MODELS = {"smollm2": smollm2.folder, "minilm": minilm.folder}
SAMPLES, HELD_OUT, LENGTH = 64, 32, 256
REPAIRS: dict[str, tuple[str, dict[str, Any]] | None] = {
    "none": None,
    "bias": ("bias", {}),
    "least_squares": ("least_squares", {}),
    "per_input": ("least_squares", {"per": "input"}),
}
USUAL = ["none", "bias", "least_squares"]
SEEDS = range(3)  # of random
ERRORS = 2
"""Standard errors to each side of a change."""

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
    ("obs", {}, "uniform", "uniform"),
    ("obs", {"per": "matrix"}, "uniform", "uniform"),
    ("fluctuation", {"metric": "ifv"}, "standardized", "uniform"),
    ("fluctuation", {"metric": "wifn"}, "standardized", "uniform"),
    ("fluctuation", {}, "standardized", "uniform"),
    ("fluctuation", {}, "standardized", "per-layer"),
    ("taylor", {}, "global", "uniform"),
    ("taylor", {}, "global", "per-layer"),
]
KINDS = ["heads", "channels"]


class Bench:
    """The dense model, what was gathered of it, and the held-out text."""

    def __init__(self, folder: Path, asked: list[Row], kinds: list[str], mended: list[str]) -> None:
        self.mended = mended
        source = Model.of(open_checkpoint(folder))
        self.graph = source.graph
        self.families = self.graph.of_kind(*kinds)
        given, _ = source.inputs.batches(Calibrate(samples=SAMPLES, length=LENGTH), source.checkpoint)
        self.rows = torch.cat([batch["input_ids"] for batch in given])
        self.model = load_model(source.checkpoint)
        self.state = self.model.state_dict()
        self.held_out = held_out(source.inputs, source.checkpoint, length=LENGTH, samples=HELD_OUT)
        self.metric = source.task.metric(self.held_out[0])
        self.dense = read_all(self.model, self.metric, self.held_out)
        consumers = {m.tensor for f in self.families for m in f.members if m.role == "in"}
        wanted: dict[str, set[str]] = {name: set(consumers) for name in ("input_mean", "input_gram")}
        for name, arguments, _, _ in asked:
            scored = self._scored(name)
            for statistic, keys in needed(self.graph, scored, criteria.get(name), arguments).items():
                wanted.setdefault(statistic, set()).update(keys)
        self.stats = collect(source.checkpoint, self.graph, wanted, given)

    def cell(self, row: Row, share: float, seed: int = 0) -> tuple[list[tuple[float, float]], float]:
        """Quality and its standard error under each of the asked REPAIRS, and the share that is gone."""
        name, arguments, allocator, widths = row
        families, entry = self._scored(name), allocators.get(allocator)
        scores = score(
            self.graph, families, criteria.get(name), self.stats, self.state.__getitem__,
            arguments=arguments, normalize=entry.meta.normalize, seed=seed,
        )  # fmt: skip
        now = self.graph.parameters()
        free = now - self.graph.parameters({family.name: np.zeros(family.size, bool) for family in families})
        kept = allocate(self.graph, families, scores, allocator=entry, remove=share, widths=widths)
        found = [self.quality(self._pruned(kept, repair)) for repair in self.mended]
        return found, (now - self.graph.parameters(kept)) / free

    def quality(self, model: nn.Module) -> tuple[float, float]:
        """The figure that models are ranked by, and the standard error of its difference to the dense model's."""
        found = self.metric.quality(read_all(model, self.metric, self.held_out), self.dense)
        value, change = found.main.value, found.changes[found.main.name]
        return value, value / change.value * (change.high - change.low) / (2 * ERRORS)

    def _pruned(self, kept: Mapping[str, Any], repair: str) -> nn.Module:
        """The dense model with zeros where consumers lost inputs, the rest of their weights repaired."""
        model = copy.deepcopy(self.model)
        name, arguments = REPAIRS[repair] or ("", {})
        entry = repairs.get(name) if name else None
        consumers = {m.tensor: m.dim for family in kept for m in self.graph.families[family].members if m.role == "in"}
        for tensor, dim in consumers.items():
            module = model.get_submodule(tensor.rpartition(".")[0])
            assert isinstance(module, nn.Linear)
            keep = torch.from_numpy(self.graph.masks(tensor, kept)[dim])
            weight, bias = module.weight.detach(), module.bias
            if entry is not None:
                given = {need: self.stats[need][tensor] for need in entry.meta.needs}
                weight, bias = entry.bind(arguments)(weight, bias, keep, **given)
                if bias is not None:
                    module.bias = nn.Parameter(bias)
            module.weight = nn.Parameter(weight * keep)
        return model

    def _scored(self, name: str) -> list:
        return [family for family in self.families if name != "cfsp" or family.kind == "channels"]


def rows_of(bench: Bench, asked: list[Row], share: float) -> Iterator[list[str]]:
    """The table's rows, as they are found."""
    digits = 3 if bench.metric.relative else 1
    for row in asked:
        name, arguments, allocator, widths = row
        several = [bench.cell(row, share, seed) for seed in (SEEDS if name == "random" else [0])]
        label = name + "".join(f" {value if isinstance(value, str) else key}" for key, value in arguments.items())
        label += " (channels alone)" if name == "cfsp" else ""
        label += f" (mean of {len(SEEDS)})" if name == "random" else ""
        cells = [
            f"{mean(value for value, _ in found):.{digits}f} ± {mean(error for _, error in found):.{digits}f}"
            for found in zip(*(cell for cell, _ in several), strict=True)
        ]
        print(share, label, allocator, widths, cells, file=sys.stderr, flush=True)
        yield [label, allocator, widths, f"{mean(gone for _, gone in several):.1%}", *cells]


def main(given: argparse.Namespace) -> None:
    """Print a table for each share."""
    torch.set_grad_enabled(False)
    asked = [row for row in ROWS if not given.criteria or row[0] in given.criteria]
    bench = Bench(MODELS[given.model](), asked, given.kinds, given.repairs)
    print(
        f"{given.model}, dense: {bench.quality(bench.model)[0]:.3f}. Calibrated on {SAMPLES} × {LENGTH} tokens of docs;"
        f" {bench.metric.name} of {HELD_OUT} × {LENGTH} tokens of manuals ± the standard error of the difference."
    )
    for share in given.share:
        print(f"\n{share:.0%} of the parameters of {' and '.join(given.kinds)}\n")
        table(["criterion", "allocator", "widths", "gone", *given.repairs], rows_of(bench, asked, share))
        if given.criteria or given.kinds != KINDS or given.model == "minilm":  # the published formulas are of Llamas
            continue
        print()
        rows = []
        for name, method in reference.METHODS.items():
            model, masks = method(bench.model, bench.rows, share)
            gone = reference.Shape.of(bench.model).removed(masks)
            rows.append([name, f"{gone:.1%}", "{:.1f} ± {:.1f}".format(*bench.quality(model))])
        table(["re-run of the published formulas", "gone", "perplexity"], rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("criteria", nargs="*", choices=sorted({row[0] for row in ROWS}), metavar="criterion")
    parser.add_argument("--model", choices=MODELS, default="smollm2")
    parser.add_argument("--share", type=lambda text: float(text.rstrip("%")) / 100, nargs="+", default=[0.2, 0.5])
    parser.add_argument("--kinds", choices=KINDS, nargs="+", default=KINDS)
    parser.add_argument("--repairs", choices=REPAIRS, nargs="+", default=USUAL)
    main(parser.parse_args())
