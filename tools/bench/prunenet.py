"""What PruneNet's policy keeps of SmolLM2-135M: of the spectra that it is trained to keep, and of the language.

    python tools/bench/prunenet.py spectra   # distances of spectra, and the processor time that learning takes
    python tools/bench/prunenet.py quality   # perplexity, next to channels taken at random and by magnitude

The first is of the rows of `gate_proj` that stay when 30 % go: the Kolmogorov-Smirnov distance of their singular values
to all rows', mean over layers, and in how many layers it is less than that of rows taken at random (mean of 5 seeds).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import smollm2
import torch
from apart import table

import compress
from compress.checkpoint.open import open_checkpoint
from compress.criteria.prunenet.policy import Policy, drawn
from compress.criteria.prunenet.spectrum import ks_distance, singular_values
from compress.evaluate.load import held_out, load_model
from compress.evaluate.read import read_all
from compress.model.model import Model
from compress.registry import criteria
from compress.score.learning import learn

SHARES, SEEDS, DRAWS = (0.2, 0.3, 0.4), (0, 1, 2), 5
TEXT, LENGTH = ("calibrate.samples=64", "calibrate.length=256"), 256
DRAWN = "{prunenet: {draw: 0}}"
CHOICES = {"prunenet": SEEDS, DRAWN: (0,), "random": SEEDS, "magnitude": (0,)}
"""Criteria whose perplexity is measured, and with which seeds of the recipe."""
ERRORS = 2
"""Standard errors to each side of a change."""

Rank = Callable[[int, torch.Tensor], torch.Tensor]
"""(layer, its matrix) → a number for each row; the highest stay."""


class Bench:
    """The first matrix of every MLP, and its singular values."""

    def __init__(self, folder: Path) -> None:
        self.source = Model.of(open_checkpoint(folder))
        self.families = self.source.graph.of_kind("channels")
        self.weights = [self.source.weights.read(family.members[0].tensor).float() for family in self.families]
        self.spectra = [singular_values(weight) for weight in self.weights]

    def learned(self, seed: int) -> Mapping[str, torch.Tensor]:
        """The policy that the recipe learns too, from the cache if it is there."""
        source = self.source
        given: Any = {"seed": seed, "model": source.checkpoint.digest}
        return learn(source.graph, self.families, criteria.get("prunenet"), {}, source.weights.read, **given)

    def distances(self, rank: Rank, share: float) -> np.ndarray:
        """Of each layer, `[layers]`."""
        found = []
        for layer, (weight, spectrum) in enumerate(zip(self.weights, self.spectra, strict=True)):
            kept = rank(layer, weight).argsort(descending=True)[: round((1 - share) * len(weight))]
            found.append(ks_distance(spectrum, singular_values(weight[kept])))
        return np.array(found)

    def averaged(self, drawn: Callable[[torch.Generator], Rank], share: float) -> np.ndarray:
        """Mean over draws, `[layers]`."""
        draws = [self.distances(drawn(torch.Generator().manual_seed(seed)), share) for seed in range(DRAWS)]
        return np.mean(draws, axis=0)


def spectra(bench: Bench) -> None:
    """Print how far the spectra of what stays are from the whole ones'."""
    rows = []
    chance = {share: bench.averaged(by_chance, share) for share in SHARES}

    def add(name: str, found: Callable[[float], np.ndarray], shares: Sequence[float] = SHARES) -> None:
        cells = [""] * len(SHARES)
        for share in shares:
            values = found(share)
            won = int((values < chance[share]).sum())
            cells[SHARES.index(share)] = f"{values.mean():.4f}, {won} of {len(values)}"
        rows.append([name, *cells])
        print(*rows[-1], file=sys.stderr, flush=True)

    for seed in SEEDS:
        start = time.process_time()
        learned = bench.learned(seed)
        print(f"seed {seed}: {time.process_time() - start:.0f} s of processor time", file=sys.stderr, flush=True)
        add(f"prunenet, seed {seed}", partial(bench.distances, by_direction(learned["direction"])))
        if seed == SEEDS[0]:
            name = f"the same, drawn as in the published code (mean of {DRAWS})"
            add(name, partial(bench.averaged, published_draws(learned)))
    for seed in SEEDS:
        policy = Policy(*bench.weights[0].shape, torch.Generator().manual_seed(seed)).learned()
        by = by_direction(policy["direction"])
        add(f"a policy that learned nothing, seed {seed}", partial(bench.distances, by), (0.3,))
    add("the norm of the row", partial(bench.distances, lambda _, weight: weight.norm(dim=1)))
    rows.append([f"random (mean of {DRAWS})", *(f"{chance[share].mean():.4f}" for share in SHARES)])
    table(["rows that stay", *(f"{share:.0%} gone" for share in SHARES)], rows)


def by_direction(direction: torch.Tensor) -> Rank:
    """The rows that a policy finds best."""
    return lambda _, weight: weight @ direction


def by_chance(generator: torch.Generator) -> Rank:
    """Any rows."""
    return lambda _, weight: torch.rand(len(weight), generator=generator)


def published_draws(learned: Mapping[str, torch.Tensor]) -> Callable[[torch.Generator], Rank]:
    """Rows drawn without replacement by the policy's noisy chances."""
    return lambda generator: lambda _, weight: drawn(weight @ learned["direction"] + learned["offset"], generator)


def quality(choices: Mapping[str, Sequence[int]], samples: int) -> None:
    """Print the perplexity of what `compress prunenet-30 SMOLLM2 OUT` writes, and of the same by other criteria."""
    model = smollm2.folder()
    source = Model.of(open_checkpoint(model))
    batches = held_out(source.inputs, source.checkpoint, length=LENGTH, samples=samples)
    metric = source.task.metric(batches[0])
    dense = read_all(load_model(source.checkpoint), metric, batches)
    rows = []
    for repair in ("null", "least_squares"):
        for by, seed in ((by, seed) for by, seeds in choices.items() for seed in seeds):
            given = [*TEXT, f"seed={seed}", f"steps.0.by={by}", f"steps.0.repair={repair}"]
            with tempfile.TemporaryDirectory() as folder:
                report = compress.run("prunenet-30", model, Path(folder) / "out", set=given, evaluate=False)
                written = load_model(open_checkpoint(Path(folder) / "out"))
            found = metric.quality(read_all(written, metric, batches), dense)
            before, change = metric.quality(dense, dense).main.value, found.changes[found.main.name]
            name = f"{by}, seed {seed}{', least squares' if repair != 'null' else ''}"
            gone = report["after"]["params"] / report["before"]["params"]
            error = (change.high - change.low) / (2 * ERRORS)
            ratio = (
                f"{change.value:,.2f} ± {error:,.2f}" if change.value < 100 else f"{change.value:,.0f} ± {error:,.0f}"
            )
            rows.append([name, f"{gone:.1%}", f"{before:.1f} → {found.main.value:,.1f}", ratio])
            print(*rows[-1], file=sys.stderr, flush=True)
    table(["prunenet-30 by", "parameters", f"perplexity of {samples} × {LENGTH} tokens", "× dense"], rows)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("what", choices=["spectra", "quality"])
    asked.add_argument("--by", nargs="+", choices=CHOICES, default=list(CHOICES), help="the criteria of `quality`")
    asked.add_argument("--seeds", nargs="+", type=int, default=SEEDS, help="of these seeds, those that it would take")
    asked.add_argument("--samples", type=int, default=32, help="sequences that perplexity is measured on")
    told = asked.parse_args()
    chosen = {by: [seed for seed in CHOICES[by] if seed in told.seeds] for by in told.by}
    spectra(Bench(smollm2.folder())) if told.what == "spectra" else quality(chosen, told.samples)
