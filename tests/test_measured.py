"""Measured allocation: curves through what was measured, the least sum by brute force, exchanges that are better."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import zoo

from compress.allocate.measured import Measured
from compress.allocate.pools import Pool
from compress.allocate.swaps import swapped
from compress.model.model import Model
from compress.pipeline import Options, plan, run
from compress.recipe.read import parse_recipe
from compress.registry import allocators
from compress.steps.units import trials as trials_module


class Known:
    """Trials of pools whose damages are given, by what they keep: the sum, and `extra` where two pools are cut."""

    def __init__(self, damages, extra=None):
        self.damages, self.extra, self.asked, self.memory = damages, extra or {}, [], {}

    def own_error(self, pool):
        return np.array(self.damages[pool.families[0]])

    def divergence(self, candidates, samples, label):
        self.asked.append((label, len(candidates)))
        return np.array([self.value(one) for one in candidates])

    def known(self, candidate, samples):
        return self.memory.get(tuple(sorted(candidate)))

    def value(self, candidate):
        counts = {name: int(mask.sum()) for name, mask in candidate.items()}
        own = sum(2 * self.damages[name][n] for name, n in counts.items())
        return own + self.extra.get(tuple(sorted(counts.items())), 0.0)


class Line(Pool):
    """A pool whose one family is its name."""

    def masks(self, kept):
        return {self.families[0]: np.arange(self.size) < kept}


def pool(name, size, cost, kind="channels"):
    return Line(kind, (0,), np.linspace(1, 0.1, size), np.full(size, float(cost)), 1, np.ones(size, int), (name,))


DAMAGES = {"a": [5, 3, 1.5, 0.5, 0.1, 0], "b": [9, 4, 2, 1.2, 0.3, 0], "c": [2, 0.4, 0.2, 0]}
POOLS = [pool("a", 5, 10), pool("b", 5, 10), pool("c", 3, 25, "heads")]


@pytest.mark.parametrize("need", [10, 30, 45, 70])
def test_the_sum_of_damages_is_the_least_of_all_that_save_as_much(need):
    measured, trials = Measured(points=15, levels=5), Known(DAMAGES)
    measured.measure(POOLS, need, trials)
    kept = measured(POOLS, need)

    def lost(counts):
        return sum(2 * DAMAGES[p.families[0]][n] for p, n in zip(POOLS, counts, strict=True))

    def saved(counts):
        return sum(p.cost[n:].sum() for p, n in zip(POOLS, counts, strict=True))

    every = itertools.product(*(range(p.minimum, p.size + 1) for p in POOLS))
    assert saved(kept) >= need
    assert lost(kept) == pytest.approx(min(lost(counts) for counts in every if saved(counts) >= need))


def test_a_curve_goes_through_what_was_measured_and_like_the_own_error_elsewhere():
    measured, trials = Measured(points=3, levels=5), Known(DAMAGES)  # one width of each pool
    measured.measure(POOLS, 40, trials)
    assert trials.asked == [("measuring cuts", 3)]
    for damage, one in zip(measured.damage, POOLS, strict=True):
        assert damage == pytest.approx(2 * np.array(DAMAGES[one.families[0]]))  # each is twice its own error


def test_pools_beyond_the_points_take_the_usual_ratio():
    measured = Measured(points=1, levels=5)
    measured.measure(POOLS, 40, Known(DAMAGES))  # of the pool with the largest share of the cost
    for damage, one in zip(measured.damage, POOLS, strict=True):
        assert damage == pytest.approx(2 * np.array(DAMAGES[one.families[0]]))


def test_an_exchange_that_turns_out_better_is_taken():
    kept = [3, 3, 3]
    better = {("a", 4), ("b", 2), ("c", 3)}
    trials = Known(DAMAGES, {tuple(sorted(better)): -5.0})
    measured = Measured(points=15, levels=5, search=4)
    measured.measure(POOLS, 40, trials)
    assert measured.improve(POOLS, kept, lambda counts: True, trials) == [4, 2, 3]
    assert measured.improve(POOLS, kept, lambda counts: counts == kept, trials) == kept  # nothing else fits


def test_exchanges_save_as_much_as_before_and_touch_each_pool_once_a_side():
    damage = [np.array(DAMAGES[p.families[0]]) for p in POOLS]
    moves = swapped(POOLS, [3, 3, 2], damage, lambda counts: True, 5, 5)
    for counts in moves:
        assert sum((p.cost[n:].sum() for p, n in zip(POOLS, counts, strict=True)), 0.0) >= 20 + 20 + 25
        assert all(p.minimum <= n <= p.size for p, n in zip(POOLS, counts, strict=True))
    gains = [next(i for i in range(3) if counts[i] > [3, 3, 2][i]) for counts in moves]
    assert moves and len(set(gains)) == len(gains)


RECIPE = """
calibrate: {data: {random: {}}, samples: 8, length: 12, batch: 4}
steps:
  - {prune: [heads, channels], by: fluctuation, remove: %s, allocate: {measured: {points: 12, samples: 2, search: 2}},
     repair: least_squares, widths: per-layer%s}
"""


@pytest.mark.slow
def test_a_recipe_measures_once_and_a_second_size_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    zoo.save("llama", tmp_path / "in")
    measured = []
    plain = trials_module.divergences
    monkeypatch.setattr(
        trials_module, "divergences", lambda *args, **kw: (measured.append(len(args[2])), plain(*args, **kw))[1]
    )
    options = Options(device="cpu", evaluate=False)
    report = run(parse_recipe(RECIPE % ("30%", "")), tmp_path / "in", tmp_path / "out", options)
    assert report is not None and report["after"]["params"] < report["before"]["params"]
    assert sum(measured) <= 12 + 3 + 1 and measured[0] > 3
    before = sum(measured)
    plan(parse_recipe(RECIPE % ("35%", "")), tmp_path / "in", options)
    assert sum(measured) - before <= 4  # only exchanges


@pytest.mark.parametrize("more", ["", ", propagate: pruned"])
def test_layers_that_matter_less_lose_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str) -> None:
    """A layer whose output counts for little has the same own error as the others, which no score tells."""
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    checkpoint = zoo.save("llama", tmp_path / "in")
    model = zoo.stock("llama", tmp_path / "in")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.mul_(0.01)
        for i in (0, 2):
            model.model.layers[i].mlp.down_proj.weight.mul_(2)
    model.save_pretrained(tmp_path / "in")
    given = parse_recipe(RECIPE.replace("[heads, channels]", "channels") % ("30%", more))
    made = plan(given, checkpoint.folder, Options(device="cpu", evaluate=False))
    graph = Model.of(zoo.open_checkpoint(tmp_path / "in")).graph
    kept = {
        family.layer: len(made.steps[0].decision["kept"].get(family.name, range(family.size)))
        for family in graph.of_kind("channels")
    }
    assert kept[1] < min(kept[0], kept[2])


def test_the_allocator_says_what_it_needs():
    assert allocators.get("measured").meta.measures
    assert allocators.get("measured").problems({"points": 0})
    assert allocators.get("measured").problems({"search": -1}) and not allocators.get("measured").problems(
        {"search": 0}
    )
