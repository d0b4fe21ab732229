"""Shipped recipes against independent re-runs of what their papers' code does (`tools/bench/reference.py`)."""

import importlib
from pathlib import Path

import pytest
import torch
import zoo

from compress.checkpoint.open import open_checkpoint
from compress.inputs.text import batches
from compress.model.build import load_config
from compress.pipeline import plan
from compress.recipe.read import read_recipe

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
TINY = ["calibrate.data=random", "calibrate.samples=6", "calibrate.length=24"]


@pytest.fixture
def reference(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools/bench")
    return importlib.import_module("reference")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def llama(tmp_path):
    folder = tmp_path / "in"
    zoo.save("llama", folder, num_hidden_layers=4, num_attention_heads=16, num_key_value_heads=8, hidden_size=64)
    return folder


def recipe(name):
    return read_recipe(ROOT / f"recipes/{name}.yaml", TINY)


def masks(kept, model):
    """What a plan keeps: groups of heads and channels, bool `[layers, groups]` and `[layers, channels]`."""
    config = model.config
    sizes = {"heads": config.num_key_value_heads, "channels": config.intermediate_size}
    found = []
    for kind, size in sizes.items():
        rows = torch.ones(config.num_hidden_layers, size, dtype=torch.bool)
        for name, indices in kept.items():
            if kind in name:
                layer = int(next(part for part in name.split(".") if part.isdecimal()))
                rows[layer] = False
                rows[layer, indices] = True
        found.append(rows)
    return found


def given(made, folder):
    """The calibration sequences, `[samples, length]`."""
    return torch.cat(
        [batch["input_ids"] for batch in batches(made.calibrate, None, load_config(open_checkpoint(folder)))[0]]
    )


def consumer_inputs(model, ids):
    """What o_proj and down_proj of every layer are given, all tokens together, float64 `[tokens, in]`."""
    seen = []
    projections = [p for layer in model.model.layers for p in (layer.self_attn.o_proj, layer.mlp.down_proj)]
    hooks = [
        p.register_forward_pre_hook(lambda _, args: seen.append(args[0].double().flatten(0, -2))) for p in projections
    ]
    with torch.no_grad():
        model(ids)
    for hook in hooks:
        hook.remove()
    return list(zip(projections, seen, strict=True))


@pytest.mark.parametrize("name", ["flap-20", "flap-50", "least-squares-50"])
def test_flap_ranks_heads_and_channels_of_all_layers_together(name, llama):
    """AL-AM in plain loops, with the variance that the published running statistic stands for."""
    made, model = recipe(name), zoo.stock("llama", llama)
    config, ranked = model.config, []
    size = config.hidden_size // config.num_key_value_heads  # of o_proj's inputs that a key/value group owns
    queries = config.num_attention_heads // config.num_key_value_heads
    cost = {"heads": (2 * queries + 2) * config.head_dim * config.hidden_size, "channels": 3 * config.hidden_size}
    for i, (projection, x) in enumerate(consumer_inputs(model, given(made, llama))):
        metric = x.var(0, correction=0) * projection.weight.detach().double().square().sum(0)
        metric = metric if i % 2 else metric.square()
        score = (metric - metric.mean()) / metric.std()
        score = score if i % 2 else score.view(-1, size).mean(1)
        ranked += [(float(s), "channels" if i % 2 else "heads", i // 2, unit) for unit, s in enumerate(score)]
    expected = {
        "heads": torch.ones(config.num_hidden_layers, config.num_key_value_heads, dtype=torch.bool),
        "channels": torch.ones(config.num_hidden_layers, config.intermediate_size, dtype=torch.bool),
    }
    left = made.steps[0].remove * sum(cost[kind] for _, kind, _, _ in ranked)
    for _, kind, layer, unit in sorted(ranked):
        if left > 0:
            expected[kind][layer, unit] = False
            left -= cost[kind]
    heads, channels = masks(plan(made, llama).steps[0].decision["kept"], model)
    assert torch.equal(heads, expected["heads"])
    assert torch.equal(channels, expected["channels"])
    assert len(set(heads.sum(1).tolist())) > 1 and len(set(channels.sum(1).tolist())) > 1


def test_flap_with_layers_tied_keeps_as_many_in_each(llama):
    heads, channels = masks(plan(recipe("flap-uniform-20"), llama).steps[0].decision["kept"], zoo.stock("llama", llama))
    assert len(set(heads.sum(1).tolist())) == len(set(channels.sum(1).tolist())) == 1


def test_wanda_sp_sees_the_pruned_layers_before(llama, reference):
    made, model = recipe("wanda-sp-20"), zoo.stock("llama", llama)
    _, expected = reference.wanda_sp(model, given(made, llama), made.steps[0].remove)
    heads, channels = masks(plan(made, llama).steps[0].decision["kept"], model)
    assert torch.equal(heads, expected.heads)
    assert not (channels & ~expected.channels).any()
    assert (expected.channels.sum(1) - channels.sum(1) <= 1).all()  # here the budget is never missed by less than one


def test_llm_pruner_leaves_its_layers_whole_and_takes_a_quarter_of_the_others(tmp_path, reference):
    zoo.save("llama", tmp_path / "in", num_hidden_layers=8)
    made, model = recipe("llm-pruner-20"), zoo.stock("llama", tmp_path / "in")
    assert (made.calibrate.samples, made.calibrate.length) == (6, 24)  # of TINY; the file has the paper's 10 × 64
    _, expected = reference.llm_pruner(model, given(made, tmp_path / "in"), 0.25)
    heads, channels = masks(plan(made, tmp_path / "in").steps[0].decision["kept"], model)
    pruned = [4, 5]
    whole = [i for i in range(8) if i not in pruned]
    assert heads[whole].all() and channels[whole].all()
    assert torch.equal(heads[pruned], expected.heads[pruned])
    assert not (channels[pruned] & ~expected.channels[pruned]).any()
    assert (expected.channels.sum(1) - channels.sum(1) <= 1)[pruned].all()


def test_amp_counts_its_share_of_the_whole_model(llama):
    made = plan(recipe("amp-30"), llama)
    before, after = (made.steps[0].before["params"], made.steps[0].after["params"])
    assert 0.68 < after / before <= 0.7
