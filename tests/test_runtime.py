"""Runtime rules: how config.json asks for them, and a model that obeys and is itself again afterwards."""

import re

import moe
import pytest
import torch
from torch import nn

from compress.errors import ModelError
from compress.runtime import attach
from compress.runtime.config import runtime_rules, written
from compress.runtime.rules.skip_experts import SkipExperts

FIRST, LAST = "model.layers.0.mlp.experts", "model.layers.2.mlp.experts"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return moe.save("mixtral", tmp_path_factory.mktemp("mixtral"))


def asking(folder, *rules):
    """The model, its config asking for `rules` where it was read."""
    model = moe.stock("mixtral", folder)
    model.config.compress = {"version": 1, "rules": list(rules)}
    return model


def skipping(threshold, *modules, protect=0.0):
    return {"kind": "skip_experts", "thresholds": dict.fromkeys(modules, threshold), "protect": protect}


def logits(model):
    with torch.no_grad():
        return model(moe.tokens()).logits


def state(model):
    """All that attaching may change of a model."""
    forwards = {name: vars(module).get("forward") for name, module in model.named_modules()}
    hooks = {name: len(module._forward_hooks) for name, module in model.named_modules()}
    return forwards, hooks, model.config._attn_implementation


def test_a_model_obeys_inside_of_the_block_only(folder):
    model = asking(folder, skipping(2.0, FIRST, LAST))
    before, dense = state(model), logits(model)
    with attach(model) as attached:
        assert not torch.allclose(logits(model), dense, atol=1e-4)
    # 3 texts of 12 tokens visit two experts in two of the layers; above 1 all choices but the first are skipped
    assert attached.counts == {"skip_experts": {"visits": 3 * 12 * 2 * 2, "skipped": 3 * 12 * 2}}
    assert state(model) == before and torch.equal(logits(model), dense)


def test_a_block_that_raises_restores_the_model(folder):
    model = asking(folder, skipping(0.5, FIRST, protect=0.1))
    before = state(model)
    with pytest.raises(ZeroDivisionError), attach(model):
        assert state(model) != before
        raise ZeroDivisionError
    assert state(model) == before


def test_attachments_nest_and_end_in_any_order(folder):
    model = asking(folder, skipping(2.0, FIRST, protect=0.1))
    before, dense = state(model), logits(model)
    outer = attach(model)
    skipped = logits(model)
    model.config.compress["rules"] = [skipping(0.0, FIRST)]
    with attach(model) as inner:
        torch.testing.assert_close(logits(model), dense, atol=1e-5, rtol=1e-5)
    assert inner.counts["skip_experts"]["skipped"] == 0 < inner.counts["skip_experts"]["visits"]
    assert torch.equal(logits(model), skipped)
    inner = attach(model)
    outer.detach()
    outer.detach()
    torch.testing.assert_close(logits(model), dense, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(skipped, dense, atol=1e-4)
    inner.detach()
    assert state(model) == before


def test_a_rule_that_does_not_fit_leaves_the_model_as_it_was(folder):
    model = asking(folder, skipping(0.5, FIRST, protect=0.1), skipping(0.5, LAST, "model.layers.9.mlp.experts"))
    before = state(model)
    with pytest.raises(ModelError, match=r"thresholds: MixtralForCausalLM has no module model\.layers\.9"):
        attach(model)
    assert state(model) == before
    with pytest.raises(ModelError, match="no stack of experts"):
        attach(asking(folder, skipping(0.5, "model.layers.0.self_attn")))


def test_models_that_ask_for_nothing_are_left_alone(folder):
    model = moe.stock("mixtral", folder)
    before = state(model)
    with attach(model) as attached, attach(nn.Linear(2, 2)) as other:
        assert state(model) == before
    assert attached.counts == other.counts == {}


def test_a_field_of_an_architecture_that_is_called_so_asks_for_nothing():
    assert runtime_rules({"model_type": "encodec", "compress": 2}, "m/config.json") == []


def test_folders_with_the_old_key_are_obeyed(folder):
    model = moe.stock("mixtral", folder)
    model.config.expert_skipping = {"thresholds": {FIRST: 2.0}, "protect": 0.0}
    with attach(model) as attached:
        found = logits(model)
    assert attached.counts["skip_experts"]["skipped"] == 36
    model = asking(folder, skipping(2.0, FIRST))
    with attach(model):
        assert torch.equal(logits(model), found)


GOOD = {"kind": "skip_experts", "thresholds": {FIRST: 0.5}}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"compress": {"version": 2, "rules": []}}, "compress.version: is 2, this program reads 1; update compress"),
        ({"compress": {"rules": []}}, "compress.version: is None"),
        ({"compress": {"version": 1}}, "compress: is {'version': 1}, not {version, rules"),
        ({"compress": [GOOD]}, "not {version, rules"),
        ({"compress": {"version": 1, "rules": [{**GOOD, "kind": "skip_expert"}]}}, "did you mean 'skip_experts'?"),
        ({"compress": {"version": 1, "rules": [GOOD, {"thresholds": {}}]}}, "compress.rules.1: is {'thresholds': {}}"),
        ({"compress": {"version": 1, "rules": [{**GOOD, "layers": 3}]}}, "unknown argument"),
        ({"compress": {"version": 1, "rules": [{"kind": "skip_experts"}]}}, "argument 'thresholds' is missing"),
        ({"compress": {"version": 1, "rules": [{**GOOD, "protect": "much"}]}}, "protect"),
        ({"expert_skipping": [1]}, "expert_skipping: is [1]"),
        ({"expert_skipping": {"thresholds": {}}, "compress": {"version": 1, "rules": []}}, "remove expert_skipping"),
    ],
)
def test_keys_that_are_not_understood(config, said):
    with pytest.raises(ModelError, match=re.escape(said)) as caught:
        runtime_rules(config, "m/config.json")
    assert str(caught.value).startswith("m/config.json: ")


def test_what_is_written_is_read():
    (asked,) = runtime_rules({"compress": written([GOOD])}, "config.json")
    assert (asked.kind, asked.rule) == ("skip_experts", SkipExperts(thresholds={FIRST: 0.5}))
    with pytest.raises(ModelError, match="unknown runtime rule"):
        written([{"kind": "nothing"}])


def test_a_rule_follows_blocks_that_are_renumbered():
    rule = SkipExperts(thresholds={FIRST: 0.1, "model.layers.1.mlp.experts": 0.2, LAST: 0.3}, protect=0.5)
    moved = rule.renumbered({"model.layers.1": None, "model.layers.2": "model.layers.1"})
    assert moved == SkipExperts(thresholds={FIRST: 0.1, "model.layers.1.mlp.experts": 0.3}, protect=0.5)
