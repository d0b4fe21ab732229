"""Token residuals against plain re-computations, and what all of them owe."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compress.errors import InputError
from compress.registry import token_residuals, token_selects
from compress.runtime.tokens.selection import Selection

N, DIM, GRID = 12, 5, (3, 4)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def offers(n=N, grid=GRID, seed=0):
    return {
        "scores": drawn(n, seed=seed).abs() + 0.01,
        "hidden": drawn(n, DIM, seed=seed + 1),
        "sizes": drawn(n, seed=seed + 2).abs().mul(3).ceil(),
        "grid": grid,
    }


def run(part, selection, have=None, **arguments):
    have = (have or offers()) | {"selection": selection}
    entry = token_residuals.get(part)
    return entry.bind(arguments)(**{name: have[name] for name in entry.meta.needs})


def chosen(*tokens):
    return Selection(torch.tensor(tokens))


def similar(a, b):
    return float(a @ b) / (float(a @ a) ** 0.5 * float(b @ b) ** 0.5)


def weights(merged):
    return merged.weights.double().numpy()


def nearest(hidden, kept):
    """Token → the kept one it is most similar to."""
    points = hidden.double().numpy()
    return [i if i in kept else max(kept, key=lambda j: similar(points[i], points[j])) for i in range(len(points))]


@pytest.mark.parametrize("part", token_residuals.names())
@given(seed=st.integers(0, 99), side=st.tuples(st.integers(1, 5), st.integers(1, 5)), share=st.floats(0, 1))
def test_every_token_is_a_mean_of_the_group(part, seed, side, share):
    n = side[0] * side[1]
    keep = max(1, round(share * n))
    have = offers(n, side, seed)
    selection = Selection(torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:keep].sort().values)
    found = run(part, selection, have)
    kept = found.kept.tolist()
    assert kept == sorted(set(kept)) and set(selection.kept.tolist()) <= set(kept)
    if part == "drop" or keep == n:
        assert found.weights is None and kept == selection.kept.tolist()
        return
    assert found.weights.dtype == torch.float32 and found.weights.shape == (len(kept), n)
    assert found.weights.min() >= 0
    torch.testing.assert_close(found.weights.sum(1), torch.ones(len(kept)))
    assert (found.weights[range(len(kept)), kept] > 0).all()  # a token is part of what stands in its place
    if part != "dense":
        assert ((found.weights > 0).sum(0) <= 1).all()  # and of nothing else
    if part not in ("dense", "cluster"):
        assert ((found.weights > 0).sum(0) == 1).all()
    assert torch.equal(run(part, selection, have).weights, found.weights)


def test_nearest_by_similarity():
    have, kept = offers(), [1, 5, 6]
    into = nearest(have["hidden"], kept)
    found = weights(run("nearest", chosen(*kept), have))
    for row, token in zip(found, kept, strict=True):
        members = [i for i in range(N) if into[i] == token]
        np.testing.assert_allclose(row, [1 / len(members) if i in members else 0 for i in range(N)], rtol=1e-6)


def test_nearest_keeps_duplicates_apart():
    hidden = torch.ones(4, DIM)
    found = run("nearest", chosen(1, 2), offers() | {"hidden": hidden})
    assert found.weights.tolist() == [
        [pytest.approx(1 / 3), pytest.approx(1 / 3), 0, pytest.approx(1 / 3)],
        [0, 0, 1, 0],
    ]


def test_nearest_where_the_selection_says():
    selection = Selection(torch.tensor([1, 3]), torch.tensor([1, 0, 1, 1, -1, -1]))
    have = offers(6, (2, 3))
    third = pytest.approx(1 / 3)
    assert run("nearest", selection, have).weights.tolist() == [[0, 1, 0, 0, 0, 0], [third, 0, third, third, 0, 0]]
    part = pytest.approx(0.2)
    assert run("nearest", selection, have, own=0.6).weights.tolist() == [
        [0, 1, 0, 0, 0, 0],
        [part, 0, part, pytest.approx(0.6), 0, 0],
    ]


def test_merging_by_size_conserves_what_tokens_stand_for():
    have, kept = offers(), [0, 4, 7, 11]
    found = run("nearest_by_size", chosen(*kept), have)
    into, sizes = nearest(have["hidden"], kept), have["sizes"].tolist()
    for row, token in zip(weights(found), kept, strict=True):
        total = sum(sizes[i] for i in range(N) if into[i] == token)
        np.testing.assert_allclose(row, [sizes[i] / total if into[i] == token else 0 for i in range(N)], rtol=1e-6)
    merged = (found.weights > 0).float() @ have["sizes"]
    assert merged.sum() == have["sizes"].sum()
    whole = (merged[:, None] * (found.weights @ have["hidden"])).sum(0)  # and so the group's sum
    torch.testing.assert_close(whole, (have["sizes"][:, None] * have["hidden"]).sum(0))


def test_merging_again_by_size_conserves_the_sum():
    hidden = drawn(16, DIM)
    states, sizes = hidden, torch.ones(16)
    for keep in (10, 5):
        selection = token_selects.get("bipartite").target(states, keep)
        found = run("nearest_by_size", selection, {"hidden": states, "sizes": sizes})
        states, sizes = found.weights @ states, (found.weights > 0).float() @ sizes
    torch.testing.assert_close((sizes[:, None] * states).sum(0), hidden.sum(0))
    assert sizes.sum() == 16


@pytest.mark.parametrize("side", [2, 2.5])
def test_cells_are_recycled(side):
    rows, columns = 4, 6
    n, have = rows * columns, offers(24, (4, 6))
    kept = [0, 1, 6, 7, 9, 20]  # the first cell as a whole, of others one
    found = run("cell", chosen(*kept), have, side=side)
    scores = have["scores"].double().numpy()
    expected = {token: {token: 1.0} for token in kept}
    for cell in {(i // columns // side, i % columns // side) for i in range(n)}:
        gone = [i for i in range(n) if (i // columns // side, i % columns // side) == cell and i not in kept]
        if gone:
            best = max(gone, key=lambda i: scores[i])
            expected[best] = {i: scores[i] / sum(scores[j] for j in gone) for i in gone}
    assert found.kept.tolist() == sorted(expected) and len(expected) in (6 + 5, 6 + 6)
    for row, token in zip(weights(found), sorted(expected), strict=True):
        np.testing.assert_allclose(row, [expected[token].get(i, 0) for i in range(n)], rtol=1e-5)
    with pytest.raises(InputError, match="token residual cell: the picture is 3×3 tokens"):
        run("cell", chosen(*kept), have | {"grid": (3, 3)})


@pytest.mark.parametrize("part", ["cell", "one"])
def test_scores_without_weight_leave_the_best_token(part):
    have = offers() | {"scores": -torch.arange(1.0, N + 1)}
    found = run(part, chosen(0, 1), have)
    assert found.kept.tolist()[:2] == [0, 1] and 2 in found.kept.tolist()
    assert torch.equal(found.weights, torch.eye(N)[found.kept])


def test_one_token_for_all():
    have, kept = offers(), [2, 3]
    gone = [i for i in range(N) if i not in kept]
    scores = have["scores"].double().numpy()
    best = max(gone, key=lambda i: scores[i])
    for weighted in (True, False):
        found = run("one", chosen(*kept), have, weighted=weighted)
        assert found.kept.tolist() == sorted([*kept, best])
        share = {i: scores[i] if weighted else 1.0 for i in gone}
        row = weights(found)[found.kept.tolist().index(best)]
        np.testing.assert_allclose(row, [share.get(i, 0) / sum(share.values()) for i in range(N)], rtol=1e-5)


def test_clusters_are_recycled():
    middles = torch.eye(4, DIM) * 10
    hidden = torch.cat((middles.repeat_interleave(4, 0) + 0.1 * drawn(16, DIM), drawn(4, DIM)))
    scores = torch.cat((torch.ones(16), torch.zeros(4)))
    have = {"hidden": hidden, "scores": scores}
    kept = chosen(16, 17)
    found = run("cluster", kept, have, share=0.84, per=5, neighbours=3)  # 16 of the 18 that leave, in 4
    assert len(found.kept) == 6
    for token, row in zip(found.kept.tolist(), weights(found), strict=True):
        members = [token] if token in (16, 17) else range(token // 4 * 4, token // 4 * 4 + 4)
        np.testing.assert_allclose(row, [1 / len(members) if i in members else 0 for i in range(20)], rtol=1e-6)
    assert found.weights[:, 18:].sum() == 0  # the least by score are lost
    alone = run("cluster", chosen(*range(1, N)), offers())
    assert alone.kept.tolist() == list(range(N)) and torch.equal(alone.weights, torch.eye(N))


def test_dense():
    have, kept = offers(), [1, 5, 6]
    points = have["hidden"].double().numpy()
    for temperature in (0.1, 1.0):
        found = weights(run("dense", chosen(*kept), have, temperature=temperature))
        for row, token in zip(found, kept, strict=True):
            powers = [math.exp(similar(points[token], p) / temperature) for p in points]
            np.testing.assert_allclose(row, np.array(powers) / sum(powers), rtol=1e-4)
    cold = run("dense", chosen(*kept), have, temperature=1e-3)
    torch.testing.assert_close(cold.weights, torch.eye(N)[kept])
