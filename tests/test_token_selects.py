"""Token selections against plain re-computations, and what all of them owe."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from picture_tokens import DIM, GRID, N, offers, run, similar

from compress.errors import InputError
from compress.registry import token_selects
from compress.runtime.tokens.selection import Selection

QUOTA = {"parts": [{"share": 0.5, "select": "top"}, {"select": "contextual"}]}


def arguments(part):
    return QUOTA if part == "quota" else {}


@pytest.mark.parametrize("part", token_selects.names())
@given(seed=st.integers(0, 99), side=st.tuples(st.integers(1, 5), st.integers(1, 5)), share=st.floats(0, 1))
def test_every_selection_keeps_what_it_is_asked_for(part, seed, side, share):
    n = side[0] * side[1]
    keep = max(1, round(share * n))
    have = offers(n, side, seed)
    found = run(part, keep, have, **arguments(part))
    assert found.kept.dtype == torch.long
    kept = found.kept.tolist()
    assert kept == sorted(set(kept)) and kept[0] >= 0 and kept[-1] < n
    if part == "pool":
        cell = min(math.floor(math.sqrt(n / keep) + 0.5), *side)
        assert len(kept) == (side[0] // cell) * (side[1] // cell)
    else:
        assert len(kept) == keep
    if found.assign is not None:
        assert found.assign.dtype == torch.long and found.assign.shape == (n,)
        assert found.assign[found.kept].tolist() == list(range(len(kept)))
        assert found.assign.min() >= -1 and found.assign.max() < len(kept)
        if part != "pool":
            assert part == "quota" or found.assign.min() == 0
    again = run(part, keep, have, **arguments(part))
    assert again.kept.tolist() == kept


@pytest.mark.parametrize("part", token_selects.names())
@pytest.mark.parametrize("n", [1, N])
def test_all_are_kept_in_order(part, n):
    found = run(part, n, offers(n, GRID if n == N else (1, 1)), **arguments(part))
    assert found.kept.tolist() == list(range(n))
    assert found.assign is None or found.assign.tolist() == list(range(n))


@pytest.mark.parametrize("part", token_selects.names())
@pytest.mark.parametrize("keep", [0, N + 1])
def test_a_count_that_is_none_is_the_callers_mistake(part, keep):
    with pytest.raises(ValueError, match=f"keep={keep} of {N} tokens"):
        run(part, keep, **arguments(part))


@pytest.mark.parametrize(
    "part", [name for name in token_selects.names() if "grid" in token_selects.get(name).meta.needs]
)
def test_a_grid_of_other_size_is_refused(part):
    with pytest.raises(InputError, match=f"token selection {part}: the picture is 2×4 tokens, the group has 12"):
        run(part, 4, offers() | {"grid": (2, 4)})


def test_top_prefers_the_first_of_equals():
    have = offers() | {"scores": torch.tensor([1.0, 3, 2, 3, 3, 0, 0, 0, 0, 0, 0, 0])}
    assert run("top", 2, have).kept.tolist() == [1, 3]
    assert run("top", 4, have).kept.tolist() == [1, 2, 3, 4]


def test_rows_are_kept_whole():
    scores = torch.tensor([[0.0, 0, 0, 9], [2, 3, 4, 3], [5, 1, 2, 2]])
    have = offers() | {"scores": scores.flatten()}
    assert run("rows", 4, have).kept.tolist() == [4, 5, 6, 7]
    assert run("rows", 6, have).kept.tolist() == [4, 5, 6, 7, 8, 10]  # of the row of 10, its best two


def test_dilate_keeps_neighbours_in_the_picture():
    scores = torch.arange(20.0).flip(0)
    scores[7] = 50  # row 1, column 2 of 4 × 5
    have = offers(20, (4, 5)) | {"scores": scores}
    assert run("dilate", 5, have, fill=False).kept.tolist() == [2, 6, 7, 8, 12]
    assert run("dilate", 5, have).kept.tolist() == [2, 6, 7, 8, 12]
    assert run("dilate", 7, have).kept.tolist() == [0, 1, 2, 6, 7, 8, 12]  # the best of the others
    assert run("dilate", 3, have).kept.tolist() == [2, 6, 7]  # the best neighbours
    have["scores"][4] = 60  # a corner, which has two
    assert run("dilate", 8, have, fill=False).kept.tolist() == [2, 3, 4, 6, 7, 8, 9, 12]
    have["scores"][3] = 70  # neighbours in common count once
    assert run("dilate", 15, have, fill=False).kept.tolist() == [2, 3, 4, 6, 7, 8, 9, 12]


def test_uniform():
    assert run("uniform", 3).kept.tolist() == [2, 6, 10]
    assert run("uniform", 5, spacing="step").kept.tolist() == [0, 2, 4, 6, 8]


def test_contextual_tokens_take_the_others():
    have = offers()
    found = run("contextual", 4, have)
    assert found.kept.tolist() == [0, 3, 6, 9]
    keys = have["key"].double().numpy().mean(1)
    for i in range(N):
        best = max(range(4), key=lambda c: similar(keys[i], keys[3 * c]))
        assert found.assign[i] == (i // 3 if i % 3 == 0 else best)


def test_bipartite_is_tomes_matching():
    have = offers()
    states = have["hidden"].double().numpy()
    best = {a: max(range(1, N, 2), key=lambda b: similar(states[a], states[b])) for a in range(0, N, 2)}
    gone = sorted(best, key=lambda a: -similar(states[a], states[best[a]]))[:4]
    found = run("bipartite", 8, have)
    assert found.kept.tolist() == [i for i in range(N) if i not in gone]
    assert [found.kept[found.assign[a]] for a in gone] == [best[a] for a in gone]
    keys = have | {"hidden": have["key"].mean(1)}
    assert run("bipartite_keys", 8, have).kept.tolist() == run("bipartite", 8, keys).kept.tolist()


def test_bipartite_goes_on_with_the_means():
    have = offers()
    first = run("bipartite", 6, have)
    means = torch.stack([have["hidden"][first.assign == i].mean(0) for i in range(6)])
    second = run("bipartite", 4, have | {"hidden": means})
    found = run("bipartite", 4, have)
    sizes = torch.bincount(first.assign, minlength=6)
    assert sizes.sum() == N and sizes.min() >= 1
    assert found.kept.tolist() == first.kept[second.kept].tolist()
    assert found.assign.tolist() == second.assign[first.assign].tolist()


def test_similar_of_low():
    have = offers()
    order = sorted(range(N), key=lambda i: -float(have["scores"][i]))
    high, low = order[:6], order[6:]
    keys = have["key"].double().numpy().mean(1)
    gone = sorted(low, key=lambda i: -max(similar(keys[i], keys[j]) for j in high))[:4]
    assert run("similar_of_low", 8, have).kept.tolist() == [i for i in range(N) if i not in gone]
    assert order[0] in run("similar_of_low", 1, have).kept.tolist()


def test_pool_cells_are_those_of_average_pooling():
    for rows, columns, keep in ((6, 6, 9), (6, 6, 4), (6, 6, 1), (5, 7, 6), (7, 5, 4)):
        n = rows * columns
        have = offers(n, (rows, columns))
        found = run("pool", keep, have)
        side = min(math.floor(math.sqrt(n / keep) + 0.5), rows, columns)
        picture = have["hidden"].T.reshape(1, DIM, rows, columns)
        expected = torch.nn.functional.avg_pool2d(picture, side, side)[0].flatten(1).T
        means = torch.stack([have["hidden"][found.assign == i].mean(0) for i in range(len(found.kept))])
        torch.testing.assert_close(means, expected)


def test_quota_shares_what_is_kept():
    have = offers(24, (4, 6))
    parts = [{"share": 0.5, "select": "top"}, {"select": "contextual"}]
    found = run("quota", 8, have, parts=parts)
    best = have["scores"].topk(4).indices.tolist()
    rest = [i for i in range(24) if i not in best]
    contexts = [rest[i] for i in (0, 5, 10, 15)]
    assert found.kept.tolist() == sorted(best + contexts)
    keys = have["key"].double().numpy().mean(1)
    for i in rest:
        target = i if i in contexts else max(contexts, key=lambda c: similar(keys[i], keys[c]))
        assert found.kept[found.assign[i]] == target
    assert [found.kept[found.assign[i]] for i in best] == best  # nothing merges into these


def test_quota_of_anchors_and_registers():
    have = offers(30, (5, 6))
    parts = [
        {"share": 0.5, "select": {"dilate": {"fill": False}}, "score": "hidden_norm"},
        {"select": "top"},
    ]
    found = run("quota", 12, have, parts=parts)
    anchor = int(have["hidden"].norm(dim=1).argmax())
    row, column = divmod(anchor, 6)
    around = [(row + a, column + b) for a, b in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))]
    near = {6 * r + c for r, c in around if 0 <= r < 5 and 0 <= c < 6}
    best = sorted((i for i in range(30) if i not in near), key=lambda i: -float(have["scores"][i]))
    assert found.kept.tolist() == sorted([*near, *best[: 12 - len(near)]])
    assert found.assign is None
    assert len(run("quota", 2, have, parts=parts).kept) == 2  # an anchor has more neighbours than are left


def test_a_quota_that_does_not_share_out_is_refused():
    for parts, said in (
        ([{"share": 0.5}], "at least 2"),
        ([{"share": 0.5}, {"share": 0.5}], "last part takes what is left"),
        ([{}, {}], "only the last part"),
        ([{"share": 0.6}, {"share": 0.5}, {}], "shares sum to 1.1"),
        ([{"share": 0.5, "select": "tpo"}, {}], "did you mean 'top'"),
        ([{"share": 0.5, "select": {"quota": QUOTA}}, {}], "a quota within a quota"),
        ([{"share": 0.5, "score": {"attention": {"heads": "all"}}}, {}], "heads"),
    ):
        with pytest.raises(InputError, match=said):
            token_selects.get("quota").bind({"parts": parts})


def test_a_selection_says_who_merges_into_none():
    found = Selection.merging(torch.tensor([4, 1]), torch.tensor([1, 1, -1, 4, 4]))
    assert found.kept.tolist() == [1, 4] and found.assign.tolist() == [0, 0, -1, 1, 1]
