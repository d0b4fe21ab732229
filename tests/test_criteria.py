"""Criteria against their papers' formulas in plain loops, and the engine that reduces them onto groups."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from synthetic import CHANNELS, DIM, GROUP, HEADS, HIDDEN, statistics, tensors, toy

from compress.errors import InputError, ModelError
from compress.registry import criteria
from compress.registry.scope import Scope
from compress.score.score import needed, score, statistics_of

GRAPH = toy()
WEIGHTS = tensors(GRAPH)
STATS = statistics(GRAPH, WEIGHTS)
HEAD, WIDE, LAYERS = (GRAPH.families[name] for name in ("heads.0", "channels.0", "layers"))
RANDOM = "random"


def runs(name, *families, graph=GRAPH, weights=WEIGHTS, stats=STATS, **kw) -> dict[str, np.ndarray]:
    return score(graph, families, criteria.get(name), stats, weights.__getitem__, **kw)


def run(name, family, **kw) -> np.ndarray:
    return runs(name, family, **kw)[family.name]


def weight(name):
    return WEIGHTS[f"layers.0.{name}.weight"].double().numpy()


def stat(statistic, name):
    return STATS[statistic][f"layers.0.{name}.weight"].double().numpy()


def of_head(h):
    """Rows of q, rows of k and v, that head h (a kv group) owns."""
    return range(h * GROUP * DIM, (h + 1) * GROUP * DIM), range(h * DIM, (h + 1) * DIM)


def by_loops(saliency, kind):
    """Sum over a group's weights of saliency(tensor, row, column)."""
    if kind == "channels":
        return [
            sum(saliency("gate", j, i) + saliency("up", j, i) + saliency("down", i, j) for i in range(HIDDEN))
            for j in range(CHANNELS)
        ]
    scores = []
    for h in range(HEADS):
        wide, narrow = of_head(h)
        total = sum(saliency("q", r, i) + saliency("o", i, r) for r in wide for i in range(HIDDEN))
        scores.append(total + sum(saliency(n, r, i) for n in "kv" for r in narrow for i in range(HIDDEN)))
    return scores


@pytest.mark.parametrize("family", [HEAD, WIDE], ids=lambda f: f.kind)
@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_magnitude(family, norm):
    def saliency(name, r, c):
        return abs(weight(name)[r, c]) ** int(norm[1])

    expected = by_loops(saliency, family.kind)
    np.testing.assert_allclose(run("magnitude", family, arguments={"norm": norm}), expected, rtol=1e-5)


@pytest.mark.parametrize("family", [HEAD, WIDE], ids=lambda f: f.kind)
@pytest.mark.parametrize("order", ["first", "second", "mixed"])
def test_taylor(family, order):
    def saliency(name, r, c):
        w, g, a = weight(name)[r, c], stat("gradient", name)[r, c], stat("fisher", name)[r, c]
        return {"first": abs(w * g), "second": abs(w * a * w), "mixed": abs(w * g - 0.5 * w * a * w)}[order]

    expected = by_loops(saliency, family.kind)
    np.testing.assert_allclose(run("taylor", family, arguments={"order": order}), expected, rtol=1e-5)


def test_taylor_vector_lets_weights_of_a_row_cancel():
    def term(name, r, axis):
        product = weight(name) * stat("gradient", name)
        return abs(sum(product[r] if axis == 0 else product[:, r]))

    channels = [term("gate", j, 0) + term("up", j, 0) + term("down", j, 1) for j in range(CHANNELS)]
    np.testing.assert_allclose(run("taylor_vector", WIDE), channels, rtol=1e-4)
    heads = []
    for h in range(HEADS):
        wide, narrow = of_head(h)
        total = sum(term("q", r, 0) + term("o", r, 1) for r in wide)
        heads.append(total + sum(term(n, r, 0) for n in "kv" for r in narrow))
    np.testing.assert_allclose(run("taylor_vector", HEAD), heads, rtol=1e-4)


def test_wanda_counts_consumers_only():
    w, x = weight("o"), stat("input_norm", "o")
    expected = [sum(abs(w[i, r]) * x[r] for i in range(HIDDEN) for r in of_head(h)[0]) for h in range(HEADS)]
    np.testing.assert_allclose(run("wanda", HEAD), expected, rtol=1e-5)


def test_activation_is_the_mean_norm_of_a_groups_channels():
    x = stat("input_norm", "o")
    expected = [np.mean([x[r] for r in of_head(h)[0]]) for h in range(HEADS)]
    np.testing.assert_allclose(run("activation", HEAD), expected, rtol=1e-6)
    np.testing.assert_allclose(run("activation", WIDE), stat("input_norm", "down"), rtol=1e-6)


@pytest.mark.parametrize("metric", ["wifv", "ifv", "wifn"])
@pytest.mark.parametrize("square", [True, False])
def test_fluctuation_standardised_as_flap_does(metric, square):
    for family, name in ((HEAD, "o"), (WIDE, "down")):
        w, v, x = weight(name), stat("input_variance", name), stat("input_norm", name)
        m = []
        for j in range(w.shape[1]):
            if metric == "wifv":
                m.append(v[j] * sum(w[i, j] ** 2 for i in range(HIDDEN)))
            elif metric == "ifv":
                m.append(v[j])
            else:
                m.append(sum(abs(w[i, j]) for i in range(HIDDEN)) / HIDDEN * x[j])
        m = np.array(m) ** (2 if square and family is HEAD else 1)
        z = (m - m.mean()) / m.std(ddof=1)
        expected = [z[list(of_head(h)[0])].mean() for h in range(HEADS)] if family is HEAD else z
        found = run("fluctuation", family, arguments={"metric": metric, "square_heads": square}, normalize="zscore")
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_amp_is_the_projection_of_the_consumer():
    np.testing.assert_allclose(run("amp", HEAD), stat("projection", "o"), rtol=1e-6)


def cfsp_by_loops(width):
    """The published score (`three_w_one_wa`), as its code has it: sums and means run over the hidden width."""
    x, scores = stat("input_norm", "down"), []
    for j in range(CHANNELS):
        columns = [np.abs(weight("down")[:, j]) * x[j], np.abs(weight("up")[j]), np.abs(weight("gate")[j])]
        shares = [sum(column[i] / column.sum() for column in columns) for i in range(width)]
        scores.append(sum(shares) / width * x[j])
    return np.array(scores)


@pytest.mark.parametrize("layout", [{}, {"fused": True}, {"conv1d": True}], ids=["plain", "fused", "conv1d"])
def test_cfsp_is_the_published_score_but_for_a_constant(layout):
    graph, weights, stats = toy(**layout), dict(WEIGHTS), {name: dict(own) for name, own in STATS.items()}
    for block in graph.blocks:
        if "fused" in layout:
            weights[f"{block}.gate_up.weight"] = torch.cat([weights[f"{block}.{n}.weight"] for n in ("gate", "up")])
        if "conv1d" in layout:
            weights[f"{block}.down.weight"] = weights[f"{block}.down.weight"].T.contiguous()
    found = run("cfsp", graph.families["channels.0"], graph=graph, weights=weights, stats=stats)
    expected = cfsp_by_loops(HIDDEN)
    np.testing.assert_allclose(found / found.sum(), expected / expected.sum(), rtol=1e-4)


def test_layers():
    angles = [float(STATS["block_angle"][block]) for block in GRAPH.blocks]
    np.testing.assert_allclose(run("angular_distance", LAYERS), angles, rtol=1e-6)
    np.testing.assert_allclose(run("block_influence", LAYERS), [1 - math.cos(math.pi * a) for a in angles], rtol=1e-5)
    expected = [
        sum(float(w.abs().sum()) for name, w in WEIGHTS.items() if name.startswith(block) and w.dim() == 2)
        for block in GRAPH.blocks
    ]
    np.testing.assert_allclose(run("magnitude", LAYERS), expected, rtol=1e-5)
    assert run(
        "wanda", LAYERS, stats={"input_norm": {n: torch.ones(w.shape[1]) for n, w in WEIGHTS.items() if w.dim() == 2}}
    ).all()


def test_random_is_seeded_and_differs_by_family():
    other = GRAPH.families["channels.1"]
    first, again = runs(RANDOM, WIDE, other, seed=3), runs(RANDOM, other, WIDE, seed=3)
    assert all((first[name] == again[name]).all() for name in first)
    assert (first[WIDE.name] != first[other.name]).any()
    assert (run(RANDOM, WIDE, seed=4) != first[WIDE.name]).any()
    assert (run(RANDOM, WIDE, seed=3, arguments={"salt": 1}) != first[WIDE.name]).any()


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "l2"])
def test_reductions_run_over_all_weights_of_a_group(reduce):
    values = [
        [abs(weight(n)[j, i]) for n in ("gate", "up") for i in range(HIDDEN)]
        + [abs(weight("down")[i, j]) for i in range(HIDDEN)]
        for j in range(CHANNELS)
    ]
    numpy = {"sum": np.sum, "mean": np.mean, "max": np.max, "l2": np.linalg.norm}[reduce]
    np.testing.assert_allclose(run("magnitude", WIDE, reduce=reduce), [numpy(v) for v in values], rtol=1e-5)


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "l2"])
@pytest.mark.parametrize("name", ["magnitude", "wanda", "taylor"])
def test_parts_of_a_weight_add_up_to_it(monkeypatch, name, reduce):
    whole = runs(name, HEAD, WIDE, reduce=reduce)
    monkeypatch.setattr("compress.score.views.PART", 5 * HIDDEN)
    for family, scores in runs(name, HEAD, WIDE, reduce=reduce).items():
        np.testing.assert_allclose(scores, whole[family], rtol=1e-6)


def test_zscore_makes_families_comparable():
    for name in ("magnitude", "wanda", "amp", "fluctuation"):
        scores = run(name, WIDE, normalize="zscore")
        assert abs(scores.mean()) < 1e-6 and 0.8 < scores.std() < 1.2, name


# Those of experts, of batch norms and of single weights, and those that learn, have tests of their own:
# test_experts.py, test_convolution_statistics.py, test_sparse.py, test_prunenet.py.
UNITS = [
    name
    for name in criteria.names()
    if criteria.get(name).meta.scope not in (Scope.EXPERTS, Scope.DISTANCES, Scope.GAINS, Scope.UPDATE, Scope.LEARNED)
    and name != "gblm"
]


@pytest.mark.parametrize("name", UNITS)
def test_every_criterion_is_finite_deterministic_and_follows_a_permutation(name):
    layers = criteria.get(name).meta.scope is Scope.LAYERS
    families = [LAYERS] if layers else [HEAD, WIDE]
    for family in families:
        scores = run(name, family)
        assert scores.shape == (family.size,) and scores.dtype == np.float64 and np.isfinite(scores).all()
        np.testing.assert_array_equal(scores, run(name, family))
    if layers or name == RANDOM:
        return
    order = torch.randperm(CHANNELS, generator=torch.Generator().manual_seed(2))
    weights, stats = dict(WEIGHTS), {statistic: dict(own) for statistic, own in STATS.items()}
    for member in WIDE.members:
        key = member.tensor
        weights[key] = WEIGHTS[key].index_select(member.dim, order)
        for own in (own for statistic, own in stats.items() if statistic != "output_curvature"):
            if key in own and own[key].shape == WEIGHTS[key].shape:
                own[key] = own[key].index_select(member.dim, order)
            elif key in own and member.role == "in":
                own[key] = own[key][order] if own[key].dim() == 1 else own[key][order][:, order]
    expected = run(name, WIDE)[order.numpy()]
    np.testing.assert_allclose(run(name, WIDE, weights=weights, stats=stats), expected, rtol=1e-5)


def test_what_calibration_is_asked_for():
    wanda, taylor = criteria.get("wanda"), criteria.get("taylor")
    assert needed(GRAPH, [HEAD, WIDE], wanda) == {"input_norm": {"layers.0.o.weight", "layers.0.down.weight"}}
    assert statistics_of(taylor) == ("gradient",)
    assert statistics_of(taylor, {"order": "first"}) == ("gradient",)
    assert (
        statistics_of(taylor, {"order": "second"})
        == statistics_of(taylor, {"order": "mixed"})
        == ("gradient", "fisher")
    )
    assert needed(GRAPH, [WIDE], taylor)["gradient"] == {f"layers.0.{n}.weight" for n in ("gate", "up", "down")}
    assert needed(GRAPH, [LAYERS], criteria.get("block_influence")) == {"block_cosine": set(GRAPH.blocks)}


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(InputError, match=r"amp cannot score layers.*block_influence"):
        run("amp", LAYERS)
    with pytest.raises(InputError, match=r"block_influence cannot score channels \(.*magnitude.* can"):
        run("block_influence", WIDE)
    with pytest.raises(ModelError, match=r"layers\.0\.down\.weight.*no input_norm"):
        run("wanda", WIDE, stats={})
    broken = WEIGHTS | {"layers.0.up.weight": torch.full((CHANNELS, HIDDEN), torch.nan)}
    with pytest.raises(ModelError, match=r"channels\.0.*finite"):
        run("magnitude", WIDE, weights=broken)
