"""Structured OBS against least squares solved anew for every candidate, and against SparseGPT's and the repairs'."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from synthetic import CHANNELS, DIM, GROUP, HEADS, statistics, tensors, toy

from compress.criteria.obs import consumers
from compress.errors import InputError
from compress.registry import criteria, repairs
from compress.registry.scope import Scope
from compress.score import elimination
from compress.score.elimination import Consumer, ascending, eliminate
from compress.score.score import score
from compress.score.views import MemberView

OUT, IN, TOKENS, DAMPING = 5, 12, 200, 0.01
generator = torch.Generator().manual_seed(0)
X = torch.randn(TOKENS, IN, generator=generator) @ torch.randn(IN, IN, generator=generator) + 0.5
W = torch.randn(OUT, IN, generator=generator)
GRAM = X.T @ X / TOKENS
EACH = torch.arange(IN)  # a group per input
TRIPLES = EACH % 4  # four groups of three inputs that do not lie together, as of head_dim


def consumer(weight=W, gram=GRAM, units=EACH, damping=DAMPING, per="input", mean=None):
    return Consumer("down", weight, gram, units, int(units.max()) + 1, damping, per, mean)


def refit(weight, x, kept, per="input", biased=False):
    """The weight on the kept inputs by lstsq, pulled to the old one with λ = damping · x², and the whole loss.

    With a bias the means are free: both sides are fitted without theirs.
    """
    x, weight = x.double(), weight.double()
    energy = x.square().mean(0) if per == "input" else x.square().mean().expand(x.shape[1])
    pull = (DAMPING * energy * len(x)).sqrt()
    x = x - x.mean(0) if biased else x
    design = torch.cat([x[:, kept], pull.diag()[:, kept]])
    wanted = torch.cat([x @ weight.T, pull.diag() @ weight.T])
    solved = torch.linalg.lstsq(design, wanted).solution
    return solved.T, float((design @ solved - wanted).square().sum() / len(x))


def brute(pairs, units, count, **kw):
    """The greedy order when every candidate is tried by solving least squares anew; what all that left cost."""
    gone: list[int] = []
    sums = []
    for _ in range(count):
        tried = {}
        for group in set(units.tolist()) - set(gone) - {-1}:
            kept = ~torch.isin(units, torch.tensor([*gone, group]))
            tried[group] = sum(refit(weight, x, kept, **kw)[1] for weight, x in pairs)
        gone.append(min(tried, key=tried.__getitem__))
        sums.append(tried[gone[-1]])
    return gone, sums


@pytest.mark.parametrize("per", ["input", "matrix"])
@pytest.mark.parametrize("biased", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("units", [EACH, TRIPLES, torch.where(EACH < 9, EACH, -1)], ids=["one", "three", "some stay"])
def test_the_order_and_the_costs_are_those_of_trying_every_candidate(units, biased, per):
    count = int(units.max())  # all but one
    made = consumer(units=units, per=per, mean=X.mean(0) if biased else None)
    order, costs = eliminate([made], count + 1, block=1, stop=count)
    expected, sums = brute([(W, X)], units, count, per=per, biased=biased)
    assert order.tolist() == expected
    np.testing.assert_allclose(costs.cumsum(0), sums, rtol=1e-4)


def test_the_first_cost_is_sparsegpts_and_the_sum_what_the_output_loses_on_the_data():
    hessian = GRAM.double() + 1e-6 * GRAM.diagonal().diag()
    alone = W.double().square().sum(0) / torch.linalg.inv(hessian).diagonal()
    first = consumer(damping=1e-6)
    torch.testing.assert_close(first.costs(EACH), alone, rtol=1e-3, atol=1e-6)
    order, costs = eliminate([first], IN, block=1, stop=5)
    kept = ~torch.isin(EACH, order)
    solution = torch.linalg.lstsq(X[:, kept].double(), (X @ W.T).double()).solution
    lost = (X[:, kept].double() @ solution - (X @ W.T).double()).square().sum(1).mean()
    assert float(costs.sum()) == pytest.approx(float(lost), rel=1e-3)


@pytest.mark.parametrize("block", [1, 3, IN])
@pytest.mark.parametrize("units", [EACH, TRIPLES], ids=["one", "three"])
@pytest.mark.parametrize("biased", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("per", ["input", "matrix"])
def test_what_is_left_equals_the_repairs_and_lstsq(block, units, biased, per):
    size, made = int(units.max()) + 1, consumer(units=units, per=per, mean=X.mean(0) if biased else None)
    order, _ = eliminate([made], size, block, stop=size // 2)
    kept = ~torch.isin(units, order)
    new = torch.zeros(OUT, IN, dtype=torch.float64)
    new[:, made.left] = made.weight / made.root
    assert not new[:, ~kept].any()
    torch.testing.assert_close(new[:, kept], refit(W, X, kept, per, biased)[0], rtol=1e-4, atol=1e-5)
    bias = torch.zeros(OUT) if biased else None
    direct, _ = repairs.get("least_squares").target(W, bias, kept, GRAM, X.mean(0), per=per)
    torch.testing.assert_close(new.float(), direct, rtol=1e-3, atol=1e-4)
    if not biased:
        direct, _ = repairs.get("obs").target(W, None, kept, GRAM, per=per)
        torch.testing.assert_close(new.float(), direct, rtol=1e-3, atol=1e-4)


def test_a_block_is_exact_among_its_candidates():
    exact = eliminate([consumer()], IN, block=1)
    whole = eliminate([consumer()], IN, block=IN // 2)  # its candidates are all
    assert whole[0].equal(exact[0])
    torch.testing.assert_close(whole[1], exact[1], rtol=1e-6, atol=1e-9)
    order, costs = eliminate([consumer()], IN, block=3)
    assert sorted(order.tolist()) == list(range(IN))
    # Whatever the order, all costs add up to the loss of everything.
    assert float(costs.sum()) == pytest.approx(float(exact[1].sum()), rel=1e-9)
    for count in (3, 6, 9):
        loss = refit(W, X, ~torch.isin(EACH, order[:count]))[1]
        assert float(costs[:count].sum()) == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("block", [1, 4])
def test_of_two_channels_that_say_the_same_one_goes_at_once_and_the_other_late(block):
    own = torch.Generator().manual_seed(1)
    x, weight = torch.randn(TOKENS, IN, generator=own), W.clone()
    x[:, 7] = x[:, 2] * 1.5 + 0.01 * torch.randn(TOKENS, generator=own)
    weight[:, [2, 7]] *= 3
    made = consumer(weight, x.T @ x / TOKENS)
    place = eliminate([made], IN, block)[0].argsort()
    assert min(place[2], place[7]) == 0 and max(place[2], place[7]) >= IN // 2
    variance = x.var(0, correction=0) * weight.square().sum(0)
    assert {2, 7} <= set(variance.topk(4).indices.tolist()), "fluctuation keeps both"


def test_consumers_of_one_input_are_one_and_others_add_up():
    other, x = torch.randn(3, IN, generator=generator), torch.randn(TOKENS, IN, generator=generator)

    def view(weight, gram):
        return MemberView("w", "in", weight, {"input_gram": gram, "input_mean": X.mean(0)}, EACH, IN)

    views = [view(W, GRAM), view(other, GRAM.clone())]
    assert len(consumers(views, [True, False], DAMPING, "input")) == 2
    (joined,) = consumers(views, [False, False], DAMPING, "input")
    order, costs = eliminate([joined], IN, block=1, stop=6)
    expected, sums = brute([(W, X), (other, X)], EACH, 6)
    assert order.tolist() == expected
    np.testing.assert_allclose(costs.cumsum(0), sums, rtol=1e-4)
    views = [view(W, GRAM), view(other, x.T @ x / TOKENS)]
    assert len(consumers(views, [False, False], DAMPING, "input")) == 2
    expected, sums = brute([(W, X), (other, x)], EACH, 6)
    for block in (1, 6):
        order, costs = eliminate(consumers(views, [False, False], DAMPING, "input"), IN, block, 6)
        assert order.tolist() == expected
        np.testing.assert_allclose(costs.cumsum(0), sums, rtol=1e-4)


def test_scores_ascend_in_the_order_of_leaving_and_never_tie():
    order, costs = torch.tensor([2, 0, 3, 1]), torch.tensor([1.0, 3.0, 3.0, 2.0], dtype=torch.float64)
    scores = ascending(order, costs)
    assert scores[order].diff().gt(0).all()
    torch.testing.assert_close(scores, torch.tensor([3.0, 3.0, 1.0, 3.0], dtype=torch.float64))


def test_float32_ranks_as_float64_does_where_inputs_differ_much(monkeypatch):
    x = X * torch.logspace(-2, 3, IN)
    weight, gram = W / torch.logspace(-2, 3, IN), x.T @ x / TOKENS
    alike = eliminate([consumer()], IN, block=4)
    exact = eliminate([consumer(weight, gram)], IN, block=4)
    assert exact[0].equal(alike[0]), "what inputs are scaled by, and weights divided by, changes nothing"
    torch.testing.assert_close(exact[1], alike[1], rtol=1e-4, atol=1e-9)
    monkeypatch.setattr(elimination, "DOUBLE", 0)
    rough = consumer(weight, gram)
    assert rough.weight.dtype == rough.inverse.dtype == torch.float32
    order, costs = eliminate([rough], IN, block=4)
    assert order.equal(exact[0])
    torch.testing.assert_close(costs, exact[1], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-12, 1e12])
def test_inputs_of_any_scale_have_scores(scale):
    gram = GRAM * scale
    gram[3], gram[:, 3] = 0, 0  # never active
    order, costs = eliminate([consumer(gram=gram)], IN, block=4)
    assert sorted(order.tolist()) == list(range(IN)) and costs.isfinite().all()
    assert order[0] == 3 or not scale


def test_a_hessian_that_cannot_be_inverted_is_refused():
    with pytest.raises(InputError, match=r"damping: 1e-18 is too little for the inputs of down"):
        consumer(gram=torch.ones(IN, IN), damping=1e-18)


def test_heads_go_with_their_queries_and_experts_are_refused():
    graph = toy()
    weights = tensors(graph)
    stats, entry = statistics(graph, weights), criteria.get("obs")
    heads = graph.families["heads.0"]
    found = score(graph, [heads], entry, stats, weights.__getitem__)[heads.name]
    gram, weight = (stats["input_gram"]["layers.0.o.weight"].double(), weights["layers.0.o.weight"].double())
    hessian = gram + 0.01 * gram.diagonal().diag()
    gone, alone = [], {}
    for _ in range(HEADS):  # (H⁻¹_PP)⁻¹ of all that is gone, with one head more each time
        losses = {}
        for head in set(range(HEADS)) - set(gone):
            own = torch.cat([torch.arange(h * GROUP * DIM, (h + 1) * GROUP * DIM) for h in (*gone, head)])
            inverse = torch.linalg.inv(torch.linalg.inv(hessian)[own[:, None], own])
            losses[head] = float((weight[:, own] @ inverse * weight[:, own]).sum())
        gone.append(min(losses, key=losses.__getitem__))
        alone[gone[-1]] = losses[gone[-1]]
    assert found.argsort().tolist() == gone
    steps = np.diff([0, *alone.values()])
    np.testing.assert_allclose(found[gone], np.maximum.accumulate(steps), rtol=1e-4)
    assert Scope.CONSUMERS.ranks("queries") and not Scope.CONSUMERS.ranks("hidden")


def test_greedy_is_near_the_best_choice_of_all():
    _, costs = eliminate([consumer()], IN, block=1, stop=4)
    best = min(refit(W, X, ~torch.isin(EACH, torch.tensor(gone)))[1] for gone in combinations(range(IN), 4))
    assert best * (1 - 1e-6) <= float(costs.sum()) <= 1.3 * best


def test_a_consumer_with_a_bias_is_scored_without_the_mean():
    graph = toy(conv1d=True)  # down has a bias
    weights = tensors(graph)
    stats, entry = statistics(graph, weights), criteria.get("obs")
    wide, name = graph.families["channels.1"], "layers.1.down.weight"
    for intercept in (True, False):
        arguments = {"block": 1, "intercept": intercept}
        found = score(graph, [wide], entry, stats, weights.__getitem__, arguments=arguments)[wide.name]
        mean = stats["input_mean"][name] if intercept else None
        made = consumer(weights[name].T, stats["input_gram"][name], torch.arange(CHANNELS), mean=mean)
        np.testing.assert_allclose(found, ascending(*eliminate([made], CHANNELS, 1)), rtol=1e-12)


def test_without_correlation_nothing_makes_up_for_anything():
    made = consumer(gram=torch.eye(IN))
    order, costs = eliminate([made], IN, block=4, stop=8)
    norms = W.double().square().sum(0) * (1 + DAMPING)
    assert order.tolist() == norms.argsort()[:8].tolist()
    torch.testing.assert_close(costs, norms.sort().values[:8])
    weight = made.weight / made.root
    kept = ~torch.isin(made.left, order)
    torch.testing.assert_close(weight[:, kept].float(), W[:, made.left[kept]])
