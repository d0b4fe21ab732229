"""Selections of tokens unlike each other, and of clusters' centres, against plain re-computations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from picture_tokens import DIM, N, distances, drawn, offers, run, similar

from compress.errors import InputError


def smallest(distance, chosen):
    return min(distance[i, j] for i, j in itertools.combinations(chosen, 2))


@pytest.mark.parametrize("seed", range(5))
def test_max_min_is_the_greedy_order_and_near_the_best(seed):
    have = offers(seed=seed)
    distance = distances(have["hidden"])
    for keep in (1, 2, 3, 4):
        found = run("max_min", keep, have).kept.tolist()
        chosen = [max(range(N), key=lambda i: sorted(distance[i])[1])]
        while len(chosen) < keep:
            rest = [i for i in range(N) if i not in chosen]
            chosen.append(max(rest, key=lambda i: min(distance[i, j] for j in chosen)))
        assert found == sorted(chosen)
    points = torch.nn.functional.normalize(have["hidden"].double(), dim=1)
    euclid = torch.cdist(points, points).numpy()  # √(2 · distance): the same greedy order, and a metric
    found = run("max_min", 4, have).kept.tolist()
    best = max(itertools.combinations(range(N), 4), key=lambda c: smallest(euclid, c))
    assert smallest(euclid, found) >= smallest(euclid, best) / 2


def test_max_min_keeps_duplicates_last():
    hidden = drawn(4, DIM).repeat(3, 1)
    kept = run("max_min", 4, offers() | {"hidden": hidden}).kept
    assert sorted(i % 4 for i in kept.tolist()) == [0, 1, 2, 3]
    assert len(set(run("max_min", 9, offers() | {"hidden": hidden}).kept.tolist())) == 9


@pytest.mark.parametrize("relevance", [0.0, 0.4, 1.0])
def test_max_sum(relevance):
    have = offers()
    distance, scores = distances(have["hidden"]), have["scores"].double().numpy()
    scaled = (scores - scores.min()) / (scores.max() - scores.min())
    chosen: list[int] = []
    while len(chosen) < 5:
        rest = [i for i in range(N) if i not in chosen]
        among = chosen or range(N)
        mean = {i: sum(distance[i, j] for j in among) / len(among) for i in rest}
        chosen.append(max(rest, key=lambda i: (1 - relevance) * mean[i] + relevance * scaled[i]))
    assert run("max_sum", 5, have, relevance=relevance).kept.tolist() == sorted(chosen)
    if relevance == 1:
        assert sorted(chosen) == run("top", 5, have).kept.tolist()
    without = offers() | {"scores": None}
    if relevance:
        with pytest.raises(InputError, match="give the rule a score"):
            run("max_sum", 5, without, relevance=relevance)
    else:
        assert run("max_sum", 5, without).kept.tolist() == sorted(chosen)


def test_facility():
    have = offers()
    likeness = 1 - distances(have["hidden"])

    def covered(chosen):
        return sum(max((likeness[i, j] for j in chosen), default=-1.0) + 1 for i in range(N))

    chosen: list[int] = []
    while len(chosen) < 4:
        chosen.append(max((i for i in range(N) if i not in chosen), key=lambda i: covered([*chosen, i])))
    assert run("facility", 4, have).kept.tolist() == sorted(chosen)
    best = max(covered(c) for c in itertools.combinations(range(N), 4))
    assert covered(chosen) >= (1 - 1 / math.e) * best


def test_dpp_takes_what_is_spanned_last():
    have = offers()
    have["hidden"] = drawn(2, DIM).repeat(N // 2, 1)
    kept = run("dpp", 5, have).kept.tolist()
    even, odd = (max(range(first, N, 2), key=lambda i: float(have["scores"][i])) for first in (0, 1))
    rest = sorted((i for i in range(N) if i not in (even, odd)), key=lambda i: -float(have["scores"][i]))
    assert kept == sorted([even, odd, *rest[:3]])


@pytest.mark.parametrize("theta", [None, 0.5])
@pytest.mark.parametrize("scored", [True, False])
def test_dpp_is_greedy_in_the_determinant(theta, scored):
    have = offers()
    scores = have["scores"].double().numpy()
    relevance = (scores - scores.min() + 1e-6) / (scores.max() - scores.min()) if scored else np.ones(N)
    if theta is not None:
        relevance = np.exp(theta / (2 * (1 - theta)) * relevance)
    likeness = 1 - distances(have["hidden"])
    np.fill_diagonal(likeness, 1)
    kernel = relevance[:, None] * likeness * relevance
    chosen: list[int] = []
    while len(chosen) < 4:  # of 5 dimensions: more have no volume
        rest = [i for i in range(N) if i not in chosen]
        chosen.append(max(rest, key=lambda i: np.linalg.det(kernel[np.ix_([*chosen, i], [*chosen, i])])))
    have["scores"] = have["scores"] if scored else None
    assert run("dpp", 4, have, theta=theta).kept.tolist() == sorted(chosen)


def test_pivots():
    have = offers()
    size = [float(k.double().abs().sum()) for k in have["key"]]
    spoken = [float(t.double().abs().sum()) for t in have["text"]]
    chosen = sorted(range(N), key=lambda i: -size[i])[:2]
    words = sorted(range(6), key=lambda i: -spoken[i])[:2]
    pivots = [have["hidden"][i] for i in chosen] + [have["text"][i] for i in words]
    left = [i for i in range(N) if i not in chosen]
    for pivot, count in zip(pivots, (2, 2, 1, 1), strict=True):  # 8 - 2 among four
        taken = sorted(left, key=lambda i: similar(pivot.double(), have["hidden"][i].double()))[:count]
        chosen += taken
        left = [i for i in left if i not in taken]
    assert run("pivots", 8, have, image=2, words=2).kept.tolist() == sorted(chosen)
    assert len(run("pivots", 2, have).kept) == 2


def test_dpc_knn():
    have = offers()
    points = have["hidden"].double().numpy()
    distance = np.array([[np.linalg.norm(a - b) / DIM**0.5 for b in points] for a in points])
    density = [math.exp(-np.mean(np.sort(row)[:3] ** 2)) for row in distance]
    value = []
    for i in range(N):
        denser = [distance[i, j] for j in range(N) if density[j] > density[i]]
        value.append(density[i] * (min(denser) if denser else distance.max()))
    centres = sorted(sorted(range(N), key=lambda i: -value[i])[:4])
    found = run("dpc_knn", 4, have, neighbours=3)
    assert found.kept.tolist() == centres
    assert found.assign.tolist() == [int(np.argmin(distance[i, centres])) for i in range(N)]


def test_dpc_knn_finds_clusters():
    middles = torch.eye(3, DIM) * 10
    hidden = middles.repeat_interleave(4, 0) + 0.1 * drawn(N, DIM)
    found = run("dpc_knn", 3, offers() | {"hidden": hidden}, neighbours=3)
    assert found.assign.tolist() == [0] * 4 + [1] * 4 + [2] * 4
