"""Token scores against their papers' formulas in plain loops."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import torch

from compress.errors import InputError
from compress.registry import token_residuals, token_scores, token_selects

LAYERS, HEADS, QUERIES, N, DIM, SIZE, TEXT = 3, 4, 5, 12, 8, 6, 5
GRID = (3, 4)


def drawn(*shape):
    return torch.randn(*shape)


def probabilities(*shape):
    return torch.rand(*shape).mul(4).softmax(-1)


def run(part, *given, **arguments):
    score = token_scores.get(part).bind(arguments)(*given)
    assert score.dtype == torch.float32 and score.shape == (N,)
    return score.double().numpy()


def norm(vector, p=2.0):
    return sum(abs(float(x)) ** p for x in vector) ** (1 / p)


def cosine(a, b):
    return float(sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))) / (norm(a) * norm(b))


@pytest.mark.parametrize("registry", [token_scores, token_selects, token_residuals], ids=lambda r: r.kind)
def test_needs_are_the_positional_parameters(registry):
    for name in registry.names():
        entry = registry.get(name)
        parameters = inspect.signature(entry.target).parameters.values()
        assert entry.meta.needs == tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY), name
        assert entry.about, name
        entry.model  # noqa: B018 (its annotations can be read)


@pytest.mark.parametrize("heads", ["mean", "max", "rms"])
@pytest.mark.parametrize("weighting", ["uniform", "linear", "decay"])
@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_attention(heads, weighting, reduce):
    rows = probabilities(LAYERS, HEADS, QUERIES, N)
    weight = {
        "uniform": [1.0] * QUERIES,
        "linear": [q + 1.0 for q in range(QUERIES)],
        "decay": [0.5 ** (QUERIES - 1 - q) for q in range(QUERIES)],
    }[weighting]
    expected = np.zeros(N)
    for i in range(N):
        for layer in range(LAYERS):
            each = [
                sum(weight[q] * float(rows[layer, h, q, i]) for q in range(QUERIES)) / sum(weight) for h in range(HEADS)
            ]
            expected[i] += {
                "mean": sum(each) / HEADS,
                "max": max(each),
                "rms": math.sqrt(sum(x * x for x in each) / HEADS),
            }[heads]
    expected /= LAYERS if reduce == "mean" else 1
    found = run("attention", rows, heads=heads, weighting=weighting, gamma=0.5, layers_reduce=reduce, layers=[0, 1, -1])
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_attention_leaves_out_heads_by_their_variance():
    rows = torch.full((1, 3, 1, N), 1 / N)
    rows[0, 1, 0, 0] += 0.3
    rows[0, 2, 0, 1] += 30.0
    spread = [float(np.var(rows[0, h, 0].double().numpy())) for h in range(3)]
    band = [spread[1] / 2, spread[1] * 2]
    for heads in ("mean", "max", "rms"):
        found = run("attention", rows, heads=heads, variance=band)
        np.testing.assert_allclose(found, rows[0, 1, 0].numpy(), rtol=1e-6)
    every = run("attention", rows)
    np.testing.assert_allclose(run("attention", rows, variance=[1e6, 2e6]), every)  # none is within: all count


def test_pagerank_is_a_power_iteration():
    logits = drawn(2, HEADS, N, N)
    logits[:, :, 2, 5:] = -torch.inf  # as a causal mask does
    for damping, temperature in ((0.0, 0.1), (0.2, 1.0)):
        expected = np.zeros(N)
        for layer in range(2):
            squares = np.zeros(N)
            for h in range(HEADS):
                scaled = logits[layer, h].double().numpy() / temperature
                graph = np.exp(scaled - scaled.max(1, keepdims=True))
                graph /= graph.sum(1, keepdims=True)
                weight = np.full(N, 1 / N)
                for _ in range(3):
                    weight = np.array([sum(weight[i] * graph[i, j] for i in range(N)) for j in range(N)])
                    weight = weight * (1 - damping) + damping / N
                assert weight.sum() == pytest.approx(1)
                squares += weight**2
            expected += np.sqrt(squares / HEADS) / 2
        found = run("pagerank", logits, iterations=3, damping=damping, temperature=temperature)
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_pagerank_prefers_what_the_preferred_attend_to():
    logits = torch.zeros(1, 1, N, N)
    logits[..., 3] = 3.0  # all attend to token 3
    logits[0, 0, 3] = 0.0
    logits[0, 0, 3, 7] = 9.0  # which attends to token 7
    found = run("pagerank", logits, temperature=1.0, heads="mean")
    assert set(np.argsort(found)[-2:]) == {3, 7}


@pytest.mark.parametrize(
    ("part", "shape"), [("hidden_norm", (DIM,)), ("key_norm", (2, SIZE)), ("value_norm", (2, SIZE))]
)
def test_norms(part, shape):
    states = drawn(N, *shape)
    flat = states.double().reshape(N, -1)
    for p in (1.0, 2.0, 3.0):
        np.testing.assert_allclose(run(part, states, p=p), [norm(row, p) for row in flat], rtol=1e-5)
    positive = [sum(max(0.0, float(x)) for x in row) for row in flat]
    np.testing.assert_allclose(run(part, states, p=1, clip=True), positive, rtol=1e-5)
    np.testing.assert_allclose(run(part, states, negative=True), -run(part, states))


def test_transition():
    given, gave = drawn(4, N, DIM), drawn(4, N, DIM)
    expected = np.zeros(N)
    for u, v in zip(given, gave, strict=True):
        turn = [math.exp(1 - cosine(u[i], v[i])) for i in range(N)]
        for i in range(N):
            expected[i] += norm(v[i]) / norm(u[i]) * turn[i] / sum(turn)
    found = run("transition", given, gave, layers=[7, 8])
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-4)
    given[:, 2] = 0
    assert run("transition", given, gave)[2] == 0


def test_delta_is_the_growth_between_two_layers():
    rows = probabilities(2, HEADS, 1, N)
    expected = rows[1, :, 0].mean(0) - rows[0, :, 0].mean(0)
    np.testing.assert_allclose(run("delta", rows, layers=[2, 6]), expected, rtol=1e-4, atol=1e-8)
    with pytest.raises(InputError, match="delta: layers"):
        token_scores.get("delta").bind({"layers": [1]})


def test_similarities():
    hidden, text, cls = drawn(N, DIM), drawn(TEXT, DIM), drawn(DIM)
    to_text = [[cosine(h, t) for t in text] for h in hidden]
    to_others = [[cosine(hidden[i], hidden[j]) for j in range(N) if j != i] for i in range(N)]
    close = {"rtol": 1e-4, "atol": 1e-6}
    np.testing.assert_allclose(run("text_similarity", hidden, text), [sum(r) / TEXT for r in to_text], **close)
    np.testing.assert_allclose(
        run("text_similarity", hidden, text, reduce="max", negative=True), [-max(r) for r in to_text], **close
    )
    np.testing.assert_allclose(run("text_similarity", hidden, text[:0]), np.zeros(N))
    np.testing.assert_allclose(
        run("cls_similarity", hidden, cls), [float(h.double() @ cls.double()) for h in hidden], **close
    )
    np.testing.assert_allclose(
        run("cls_similarity", hidden, cls, measure="cosine"), [cosine(h, cls) for h in hidden], **close
    )
    np.testing.assert_allclose(run("uniqueness", hidden), [1 - sum(r) / (N - 1) for r in to_others], **close)
    np.testing.assert_allclose(run("uniqueness", hidden, reduce="max"), [1 - max(r) for r in to_others], **close)
    assert token_scores.get("uniqueness").target(hidden[:1]).tolist() == [1]


def test_entropy_counts_grey_values():
    pixels = torch.rand(N, 49)
    pixels[0] = 0.5
    pixels[1] = torch.arange(49) / 255
    expected = []
    for row in pixels:
        counts = np.bincount([round(float(x) * 255) for x in row], minlength=256) / 49
        expected.append(-sum(p * math.log2(p) for p in counts if p))
    found = run("entropy", pixels)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert found[0] == 0 and found[1] == pytest.approx(math.log2(49))


def test_positions():
    hidden = drawn(N, DIM)
    first, last = (run("position", hidden, prefer=name) for name in ("first", "last"))
    assert np.argsort(-first).tolist() == np.argsort(last).tolist() == list(range(N))
    many = token_scores.get("position").target(drawn(600, 1))
    for k in (10, 75, 300):
        best = many.topk(k).indices.sort().values
        assert best.diff().max() <= 3 * 600 / k  # no large part of the picture is left out
    found = run("centre", hidden, GRID).reshape(GRID)
    assert found[1, 1] == found[1, 2] == found.max()
    assert found[0, 0] == found[0, 3] == found[2, 0] == found[2, 3] == found.min() == 0
    with pytest.raises(InputError, match="3×4 tokens, the group has 11"):
        token_scores.get("centre").target(hidden[:11], GRID)


def test_flow():
    rows, value, cls = probabilities(1, HEADS, 1, N), drawn(N, HEADS, SIZE), drawn(HEADS, SIZE)
    given = [float(rows[0, :, 0, i].double().mean()) for i in range(N)]
    alike = np.zeros(N)
    for h in range(HEADS):
        powers = [math.exp(float(cls[h].double() @ v[h].double())) for v in (cls, *value)]
        alike += np.array(powers[1:]) / sum(powers) / HEADS
    size = [float(value[i].double().mean(0).abs().sum()) for i in range(N)]
    expected = [(given[i] / sum(given) + alike[i] / alike.sum()) * size[i] for i in range(N)]
    found = run("flow", rows, value, cls, None)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    before = torch.rand(N)
    mixed = run("flow", rows, value, cls, before, decay=0.25)
    np.testing.assert_allclose(mixed, 0.25 * before.double().numpy() + 0.75 * found, rtol=1e-5)
    every = probabilities(1, HEADS, N, N)
    expected = [float(every[0, :, :, i].double().mean()) * size[i] for i in range(N)]
    np.testing.assert_allclose(run("received_flow", every, value, None), expected, rtol=1e-4)


def test_attention_of_global_tokens():
    rows = probabilities(2, HEADS, N, N)
    rows[..., 4] += 1.0
    rows[..., 9] += 1.0
    mean = rows.double().mean((0, 1)).numpy()
    found = run("global_attention", rows, layers=[0, 1], threshold=2)
    np.testing.assert_allclose(found, (mean[4] + mean[9]) / 2, rtol=1e-5)
    none = run("global_attention", rows, threshold=100)
    np.testing.assert_allclose(none, mean.mean(0), rtol=1e-5)


def test_attention_of_the_words_that_match():
    rows, hidden, text = probabilities(1, HEADS, TEXT, N), drawn(N, DIM), drawn(TEXT, DIM)
    match = np.zeros(TEXT)
    for h in hidden.double().numpy():
        powers = [math.exp(float(h @ t)) for t in text.double().numpy()]
        match += np.array(powers) / sum(powers) / N
    raters = [j for j in range(TEXT) if match[j] > match.mean()]
    assert 0 < len(raters) < TEXT
    expected = rows[0].double().mean(0)[raters].mean(0)
    np.testing.assert_allclose(run("rated_attention", rows, hidden, text), expected, rtol=1e-5)
    alone = run("rated_attention", rows[:, :, :1], hidden, text[:1])  # no better than the mean, which it is
    np.testing.assert_allclose(alone, rows[0, :, 0].mean(0), rtol=1e-5)


def test_chance_is_the_generators():
    hidden = drawn(N, DIM)
    first, again, other = (run("random", hidden, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()


def test_wrong_arguments_are_told():
    for part, arguments, said in (
        ("attention", {"querys": "cls"}, "did you mean 'queries'"),
        ("attention", {"queries": "cl"}, "not 'cl'"),
        ("attention", {"window": 0}, "window"),
        ("attention", {"layers": []}, "at least one is needed"),
        ("attention", {"variance": [2, 1]}, "write the lower bound first"),
        ("pagerank", {"temperature": 0}, "temperature"),
        ("flow", {"queries": "all"}, "queries"),
    ):
        with pytest.raises(InputError, match=said):
            token_scores.get(part).bind(arguments)
