"""Allocators: budgets are met, equal widths are equal, milp is exact, what is impossible says what is not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from synthetic import CHANNELS, HEADS, toy

from compress.allocate.latency_table import LatencyTable
from compress.allocate.pools import Pool, make_pools
from compress.allocate.spend import allocate
from compress.errors import BudgetError, InputError
from compress.registry import allocators

GRAPH = toy(blocks=3, channels=64)
KINDS = ("heads", "channels")
ANGLES = {"block_angle": {block: 0.05 + 0.1 * i for i, block in enumerate(GRAPH.blocks)}}


def scores_of(graph, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.random(family.size) + 0.01 for name, family in graph.families.items()}


class Trials:
    """A model that suffers by the scores of what goes."""

    def __init__(self, scores):
        self.scores = scores

    def own_error(self, pool):
        return np.append(np.cumsum((pool.scores * pool.units)[::-1])[::-1], 0.0)

    def divergence(self, candidates, samples, label):
        return np.array([sum(self.scores[key][~mask].sum() for key, mask in one.items()) for one in candidates])

    def known(self, candidate, samples):
        return None


def run(name, graph=GRAPH, kinds=KINDS, scores=None, **kw):
    kw = {"stats": ANGLES, "widths": "per-layer", **kw}
    scores = scores or scores_of(graph)
    kw |= {"trials": Trials(scores)} if allocators.get(name).meta.measures else {}
    return allocate(graph, graph.of_kind(*kinds), scores, allocator=allocators.get(name), **kw)


def pool(scores, cost, units=1, minimum=1, kind="channels", layer=0):
    scores = np.sort(np.asarray(scores, float))[::-1]
    return Pool(
        kind,
        (layer,),
        scores,
        np.broadcast_to(np.asarray(cost, float), scores.shape),
        minimum,
        np.full(len(scores), units),
    )


def saved(pools, kept):
    return sum(p.cost[n:].sum() for p, n in zip(pools, kept, strict=True))


def lost(pools, kept):
    return sum((p.scores * p.units)[n:].sum() for p, n in zip(pools, kept, strict=True))


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("widths", ["uniform", "per-layer"])
@pytest.mark.parametrize("name", allocators.names())
def test_the_budget_is_met_within_a_bundle(name, widths, share):
    if allocators.get(name).meta.layerwise and widths == "uniform":
        with pytest.raises(InputError, match="widths: per-layer"):
            run(name, widths=widths, remove=share)
        return
    kept = run(name, widths=widths, remove=share)
    families = GRAPH.of_kind(*KINDS)
    own = GRAPH.parameters() - GRAPH.parameters({f.name: np.zeros(f.size, bool) for f in families})
    gone = GRAPH.parameters() - GRAPH.parameters(kept)
    head = max(GRAPH.parameters() - GRAPH.parameters({f.name: np.arange(f.size) > 0}) for f in families)
    bundle = head * (len(GRAPH.blocks) if widths == "uniform" else 1)
    assert share * own <= gone < share * own + bundle
    assert set(kept) == {f.name for f in families} and all(mask.any() for mask in kept.values())
    for f in families:  # the best of each family stay
        scores = scores_of(GRAPH)[f.name]
        assert kept[f.name].all() or scores[kept[f.name]].min() >= scores[~kept[f.name]].max()


@pytest.mark.parametrize("name", ["uniform", "global", "milp"])
def test_channels_fill_what_heads_leave(name):
    kept = run(name, remove=0.3)
    own = GRAPH.parameters() - GRAPH.parameters({f.name: np.zeros(f.size, bool) for f in GRAPH.of_kind(*KINDS)})
    gone = GRAPH.parameters() - GRAPH.parameters(kept)
    head = GRAPH.parameters() - GRAPH.parameters({"heads.0": np.arange(HEADS) > 0})
    channel = GRAPH.parameters() - GRAPH.parameters({"channels.0": np.arange(64) > 0})
    assert gone - 0.3 * own < (channel if name == "uniform" else head)


def test_uniform_widths_are_uniform_and_share_is_the_same():
    for name in ("uniform", "global", "standardized", "milp"):
        kept = run(name, widths="uniform", remove=0.4)
        for kind in KINDS:
            assert len({int(kept[f.name].sum()) for f in GRAPH.of_kind(kind)}) == 1, (name, kind)
    kept = run("uniform", remove=0.25)
    assert {int(kept[f"heads.{i}"].sum()) for i in range(3)} == {3}
    assert {int(kept[f"channels.{i}"].sum()) for i in range(3)} == {48}


@pytest.mark.parametrize("widths", ["uniform", "per-layer"])
@pytest.mark.parametrize("name", ["uniform", "global", "milp"])
def test_round(name, widths):
    kept = run(name, widths=widths, remove=0.4, round=8)
    assert all(int(kept[f"channels.{i}"].sum()) % 8 == 0 for i in range(3))
    assert any(int(kept[f"heads.{i}"].sum()) % 8 for i in range(3))
    kept = run(name, kinds=("heads",), widths=widths, remove=0.4, round=2)
    assert all(int(kept[f"heads.{i}"].sum()) % 2 == 0 for i in range(3))
    odd = toy(channels=21)
    kept = run(name, graph=odd, kinds=("channels",), widths=widths, remove=0.2, round=8)
    assert {int(mask.sum()) for mask in kept.values()} <= {21, 16, 8}


def test_layers_lose_the_lowest():
    scores = {"layers": np.array([0.3, 0.1, 0.2])}
    assert run("global", kinds=("layers",), scores=scores, remove=1 / 3)["layers"].tolist() == [True, False, True]
    kept = run("uniform", kinds=("layers", "channels"), scores=scores_of(GRAPH) | scores, remove=0.5)
    lost_blocks = GRAPH.removed_blocks(kept)
    assert lost_blocks and all(GRAPH.families[name].layer not in lost_blocks for name in kept)


def test_flops_and_targets():
    target = 0.7 * GRAPH.flops(sequence=16)
    kept = run("global", target=target, measure="flops", sequence=16)
    assert 0.95 * target < GRAPH.flops(kept, sequence=16) <= target


def test_earlier_steps_stay_decided():
    first = {"layers": np.array([True, False, True]), "channels.0": np.arange(64) < 32}
    now = GRAPH.parameters(first)
    kept = run("uniform", target=0.8 * now, already=first)
    assert "channels.1" not in kept and not (kept["channels.0"] & ~first["channels.0"]).any()
    left = GRAPH.parameters({**first, **kept})
    assert 0.7 * now < left <= 0.8 * now


def test_global_takes_the_lowest_scores_per_group_or_per_cost():
    heads, wide = pool([9, 5, 4], 10, kind="heads"), pool([8, 3, 2, 1], 1)
    get = allocators.get("global")
    assert get.bind({})([heads, wide], 3) == [3, 1]
    assert get.bind({})([heads, wide], 12) == [2, 1]
    assert get.bind({"per": "cost"})([heads, wide], 10) == [2, 4]


def test_coarse_to_fine_is_cfsps_formula():
    pools = [pool(np.arange(100), 1, layer=i) for i in range(3)]
    angle = np.array([0.1, 0.2, 0.3])
    kept = allocators.get("coarse_to_fine").target(pools, 150, angle)
    gate = 1 / (1 + np.exp(-13.1072 * (angle - angle.mean())))
    wanted = 100 * gate / gate.mean() * 0.5
    np.testing.assert_allclose(kept, wanted, atol=1)
    assert sum(kept) == 150
    kept = allocators.get("coarse_to_fine").target(pools, 45, angle)  # the last block would keep more than all
    scale = min(1.0, gate.mean() * (1 / 0.85 - 1) / (gate.max() - gate.mean()) / 1.05)
    wanted = 100 * (1 + scale * (gate / gate.mean() - 1)) * 0.85
    np.testing.assert_allclose(kept, wanted, atol=1)
    assert sum(kept) == 255 and kept[0] < kept[1] < kept[2] < 100


@pytest.mark.parametrize("seed", range(12))
def test_milp_is_exact(seed):
    rng = np.random.default_rng(seed)
    if seed % 3 == 0:  # costs that differ within a pool, as latency's
        pools = [pool(rng.random(5), rng.random(5), layer=i) for i in range(3)]
    elif seed % 3 == 1:  # heads and channels, whole costs
        pools = [pool(rng.random(3), 70, kind="heads", layer=i) for i in range(2)]
        pools += [pool(rng.random(6), 18, units=2, layer=i) for i in range(2)]
    else:  # standardised scores, some below zero
        pools = [pool(rng.normal(size=5), c, layer=i) for i, c in enumerate((3, 5, 7))]
    counts = list(itertools.product(*(range(p.minimum, p.size + 1) for p in pools)))
    most = saved(pools, [p.minimum for p in pools])
    for share in (0.15, 0.4, 0.7, 0.95):
        need = share * most
        kept = allocators.get("milp").target(pools, need)
        assert saved(pools, kept) >= need - 1e-6
        shift = max(0.0, max(float((-p.scores * p.units / p.cost)[p.minimum :].max()) for p in pools))

        def loss(kept, shift=shift):
            return lost(pools, kept) + shift * saved(pools, kept)

        best = min(loss(c) for c in counts if saved(pools, c) >= need - 1e-9)
        assert loss(kept) == pytest.approx(best, abs=1e-6)
        for name in ("uniform", "global", "standardized"):
            other = allocators.get(name).target(pools, need)
            assert saved(pools, other) < need - 1e-9 or loss(kept) <= loss(other) + 1e-6, name


def test_milp_of_a_large_model():
    rng = np.random.default_rng(0)
    pools = [pool(rng.random(8) * 50, 2_621_440, kind="heads", layer=i) for i in range(20)]
    pools += [pool(rng.random(5000), 6144, layer=i) for i in range(20)]
    need = 0.37 * sum(p.cost.sum() for p in pools)
    kept = allocators.get("milp").bind({"seconds": 600})(pools, need)
    assert need <= saved(pools, kept) < need + 2_621_440
    ratio = allocators.get("global").bind({"per": "cost"})(pools, need)
    assert lost(pools, kept) <= lost(pools, ratio)


def test_impossible_budgets_say_what_is_possible():
    with pytest.raises(
        BudgetError, match=r"at most .* params .* remain at the least, as every family must keep a group"
    ):
        run("uniform", remove=0.99)
    with pytest.raises(BudgetError, match="nothing to remove"):
        run("uniform", target=GRAPH.parameters())
    with pytest.raises(BudgetError, match="in steps of 128"):
        run("uniform", kinds=("channels",), remove=0.2, round=128)
    with pytest.raises(BudgetError, match="no family of these kinds"):
        run("uniform", kinds=("experts",), remove=0.2)
    with pytest.raises(InputError, match="coarse_to_fine needs statistics"):
        run("coarse_to_fine", remove=0.2, stats={})


def test_an_allocator_that_ignores_its_budget_is_found_out():
    entry = allocators.get("global")
    greedy = type(entry)(entry.kind, "greedy", lambda pools, budget: [pool.minimum for pool in pools], entry.meta)
    with pytest.raises(BudgetError, match=r"greedy cannot leave .* nearest"):
        allocate(GRAPH, GRAPH.of_kind("channels"), scores_of(GRAPH), allocator=greedy, remove=0.2, widths="per-layer")


def test_pools_tie_the_rth_best_of_every_layer():
    graph = toy(blocks=2, channels=CHANNELS)
    scores, families = scores_of(graph), graph.of_kind("channels")
    (tied,) = make_pools(families, scores, lambda family, order: np.ones(len(order)), round=4)
    ranked = [np.sort(scores[f.name])[::-1] for f in families]
    np.testing.assert_allclose(tied.scores[0], np.mean([r[:4] for r in ranked]))
    assert tied.units.tolist() == [8, 8, 4] and tied.cost.tolist() == [8, 8, 4] and tied.layers == (0, 1)
    masks = tied.masks(2)
    assert all(set(np.flatnonzero(m)) == set(np.argsort(-scores[n])[:8]) for n, m in masks.items())


def test_latency_table_is_a_measure():
    timed = []

    def clock(shapes, device, tokens, repeats):
        timed.append(shapes)
        return 1e-6 * sum(a * b for a, b in shapes)

    table = LatencyTable(GRAPH, tuple(GRAPH.of_kind(*KINDS)), points=4, clock=clock)
    whole = table({})
    assert whole == pytest.approx(
        1e-6
        * sum(
            a.size * b.size
            for n in GRAPH.layouts
            if n.startswith("layers") and len(GRAPH.layouts[n]) == 2
            for a, b in [GRAPH.layouts[n]]
        )
    )
    assert table({"layers": np.array([True, False, True])}) == pytest.approx(whole * 2 / 3)
    for name in ("uniform", "global", "milp"):
        kept = run(name, target=0.6 * whole, measure=table)
        assert 0.5 * whole < table(kept) <= 0.6 * whole
    assert len(timed) == len(set(timed)) < 12  # equal blocks are timed once


def test_latency_table_times_real_layers():
    table = LatencyTable(GRAPH, tuple(GRAPH.of_kind("channels")), tokens=4, points=2, repeats=1)
    assert table({}) > 0
