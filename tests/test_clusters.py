"""Greedy clusters against the loop that STUN's code runs on its distances, and one threshold for all layers."""

import moe
import numpy as np
import pytest

from compress.errors import InputError
from compress.pipeline import plan
from compress.recipe.read import parse_recipe
from compress.score.clusters import clusters, greedy, merge_heights


def published(distances, threshold):
    """`greedy_but_reject_mixed`, entry by entry: what is merged or refused becomes infinitely far."""
    values = distances.copy()
    np.fill_diagonal(values, np.inf)
    cluster = {i: {i} for i in range(len(values))}
    while values.min() < threshold:
        one, other = np.unravel_index(values.argmin(), values.shape)
        lengths = [values[i, other] for i in cluster[one]] + [values[i, one] for i in cluster[other]]
        if max(lengths) < threshold:
            for i in cluster[one]:
                values[i, other] = np.inf
            for i in cluster[other]:
                values[i, one] = np.inf
            union = cluster[one] | cluster[other]
            for i in union:
                cluster[i] = union
        else:
            values[one, other] = values[other, one] = np.inf
    return sorted({tuple(sorted(group)) for group in cluster.values()})


def apart(seed, size=12):
    points = np.random.default_rng(seed).normal(size=(size, 3))
    return np.linalg.norm(points[:, None] - points, axis=-1)


@pytest.mark.parametrize("seed", range(8))
def test_greedy_clusters_are_the_published_ones(seed):
    distances = apart(seed)
    for threshold in np.unique(distances)[1:] + 1e-9:
        found = sorted(tuple(group) for group in greedy(distances, threshold))
        assert found == published(distances, threshold), threshold


def test_heights_are_the_thresholds_at_which_experts_go():
    steady = 0
    for seed in range(12):
        distances = apart(seed)
        limits = np.unique(distances)[1:]
        counts = [len(published(distances, limit + 1e-9)) for limit in limits]
        if counts != sorted(counts, reverse=True):
            continue  # a greater threshold left more: which one a bisection finds is anyone's guess
        steady += 1
        expected = [
            next(limit for limit, n in zip(limits, counts, strict=True) if n <= left) for left in range(11, 0, -1)
        ]
        np.testing.assert_allclose(np.sort(merge_heights(distances, 1, "greedy"))[:-1], expected)
    assert steady > 2


@pytest.mark.parametrize("method", ["linkage", "greedy"])
def test_as_many_clusters_as_asked(method):
    for seed in range(4):
        for count in range(1, 13):
            groups = clusters(apart(seed), 1, count, method)
            assert len(groups) == count and sorted(i for group in groups for i in group) == list(range(12))


def test_the_two_methods_differ():
    assert any(clusters(apart(s), 1, n, "greedy") != clusters(apart(s), 1, n) for s in range(8) for n in range(2, 8))


def recipe(more):
    return parse_recipe(f"steps:\n- {{prune: experts, by: behaviour, remove: 30%, clusters: greedy{more}}}\n")


def test_one_threshold_for_all_layers_as_stun_searches_it(tmp_path):
    dense = moe.save("mixtral", tmp_path / "in")
    made = plan(recipe(", allocate: global, widths: per-layer, skip_layers: [2]"), dense)  # there counts go up and down
    kept = {int(name.split(".")[2]): len(stay) for name, stay in made.steps[0].decision["kept"].items()}
    layers = {}
    blocks = moe.blocks(moe.stock("mixtral", dense))
    for number, block in ((n, blocks[n]) for n in (0, 1)):
        gate = block.gate.weight.detach().double()
        layers[number] = ((gate[:, None] - gate).norm(dim=-1) / gate.norm()).numpy()
        kept.setdefault(number, 8)
    assert len(set(kept.values())) > 1
    # The threshold is searched until as many experts as asked are left in all layers together; here by trying all.
    total = sum(kept.values())
    limits = np.unique(np.concatenate([np.unique(each.round(9)) for each in layers.values()])) + 1e-6
    found = [{n: len(published(each, limit)) for n, each in layers.items()} for limit in limits]
    assert kept in [counts for counts in found if sum(counts.values()) == total]


def test_clusters_are_for_criteria_that_make_them():
    with pytest.raises(InputError, match="clusters: criterion 'reap' makes no clusters"):
        parse_recipe("steps:\n- {prune: experts, by: reap, remove: 30%, clusters: greedy}\n")
