"""Dynamic skipping of experts: thresholds, which choices are left out, who is protected, what the model then gives."""

import json

import moe
import pytest
import torch
import transformers
import zoo

from compress.checkpoint.open import open_checkpoint
from compress.errors import BudgetError, InputError
from compress.inputs.text import batches
from compress.model.build import load_config
from compress.pipeline import Options, apply, plan, run
from compress.recipe.read import parse_recipe
from compress.runtime import attach, importance
from compress.runtime.rules.skip_experts import keep

QUICK = Options(evaluate=False)


def recipe(step):
    return parse_recipe(f"calibrate: {{data: random, samples: 8, length: 16, batch: 4}}\nsteps: [{step}]")


def skipping(name, folder, step="{skip: experts, remove: 50%, protect: 0}"):
    dense = moe.save(name, folder / "dense")
    run(recipe(step), dense, folder / "out", QUICK)
    return dense, folder / "out"


def asked(folder):
    """The one runtime rule that a folder's config asks for."""
    key = json.loads((folder / "config.json").read_text())["compress"]
    assert key["version"] == 1
    (rule,) = key["rules"]
    assert rule["kind"] == "skip_experts"
    return rule


def chosen(model, ids):
    """The router's weights `[tokens, k]` of every module of experts, greatest first."""
    found = {}
    hooks = [
        module.register_forward_pre_hook(lambda m, args, name=name: found.__setitem__(name, args[2].detach()))
        for name, module in model.named_modules()
        if name.endswith(".experts")
    ]
    with torch.no_grad():
        model(ids)
    for hook in hooks:
        hook.remove()
    return {
        name: weights.reshape(-1, weights.shape[-1]).sort(descending=True).values for name, weights in found.items()
    }


@pytest.mark.parametrize("name", ["mixtral", "deepseek_v3"])
def test_thresholds_are_the_quantile_of_the_choices_weights(name, tmp_path):
    dense, out = skipping(name, tmp_path, "{skip: experts, remove: 30%}")
    thresholds = asked(out)["thresholds"]
    rows, _ = batches(recipe("{skip: experts, remove: 30%}").calibrate, None, load_config(open_checkpoint(dense)))
    weights = chosen(moe.stock(name, dense), torch.cat([batch["input_ids"] for batch in rows]))
    assert thresholds.keys() == weights.keys()
    for module, values in weights.items():
        ratios = (values[:, 1:] / values[:, :1]).flatten()
        assert abs(float((ratios < thresholds[module]).float().mean()) - 0.3) <= 0.02


def test_choices_below_the_threshold_go_and_the_first_never_does():
    weights = torch.tensor([[0.2, 0.5, 0.3], [0.34, 0.33, 0.33], [1.0, 0.0, 0.0]])
    made = keep(weights, 0.5)
    assert made.tolist() == [[False, True, True], [True, True, True], [True, False, False]]
    assert keep(weights, 9.0).tolist()[0] == [False, True, False]
    assert keep(weights, 0.5, torch.tensor([True, False, False])).tolist()[0] == [True, True, True]


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "gpt_oss", "granitemoe"])
def test_output_is_that_of_weights_set_to_zero_and_scaled(name, tmp_path):
    _, out = skipping(name, tmp_path)
    thresholds = asked(out)["thresholds"]
    model, ids = moe.stock(name, out), moe.tokens()

    def zero(module, args, threshold):
        states, index, weights = args
        first = weights.max(-1, keepdim=True).values
        left = weights * (weights >= threshold * first)
        return states, index, left * weights.sum(-1, keepdim=True) / left.sum(-1, keepdim=True)

    def run_with(*hooks):
        with torch.no_grad():
            output = model(ids).logits
        for hook in hooks:
            hook.remove()
        return output

    dense = run_with()
    wanted = run_with(
        *(
            model.get_submodule(module).register_forward_pre_hook(lambda m, args, t=value: zero(m, args, t))
            for module, value in thresholds.items()
        )
    )
    with attach(model) as attached:
        found = run_with()
    counts = attached.counts["skip_experts"]
    assert 0.1 < counts["skipped"] / counts["visits"] < 0.4
    assert not torch.allclose(wanted, dense, atol=1e-4)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(run_with(), dense, atol=0, rtol=0)


def test_the_tokens_that_get_most_attention_keep_all_their_experts(tmp_path):
    _, out = skipping("mixtral", tmp_path, "{skip: experts, remove: 90%, protect: 0.25}")
    model = moe.stock("mixtral", out)
    ids = moe.tokens(rows=2, length=16)
    eager = transformers.AutoModelForCausalLM.from_pretrained(out, attn_implementation="eager").eval()
    seen = {}
    eager.model.layers[0].mlp.register_forward_pre_hook(lambda m, args: seen.update(states=args[0]))
    with torch.no_grad():
        attention = eager(ids, output_attentions=True).attentions[0]
    column = attention.mean(1).sum(1) / torch.arange(16, 0, -1)  # queries that may see each token
    matters = column * seen["states"].abs().sum(-1)
    best = matters.topk(4, dim=1).indices
    attach(model)
    found = protected(model, ids)
    assert torch.equal(found.nonzero()[:, 1].view(2, 4).sort().values, best.sort().values)


def protected(model, ids, **more):
    """Which tokens the first layer of a model that obeys protects, bool `[batch, length]`."""
    found = []
    before = importance.Importance.protected

    def told(self, states):
        found.append(before(self, states))
        return found[-1]

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(importance.Importance, "protected", told)
        model(ids, **more)
    return found[0].view(ids.shape)


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss", "deepseek_v3"])
def test_protecting_leaves_attention_what_it_is(name, tmp_path):
    """GPT-OSS has sinks in its attention, DeepSeek latent keys; two models may obey at once."""
    _, out = skipping(name, tmp_path, "{skip: experts, remove: 50%, protect: 99%}")
    ids = moe.tokens(rows=2, length=12)
    models = [moe.stock(name, out) for _ in range(3)]
    rule = models[0].config.compress["rules"][0]
    rule["thresholds"] = dict.fromkeys(rule["thresholds"], 0.0)
    attached = [attach(model) for model in models[:2]]
    with torch.no_grad():
        found, _, dense = [model(ids).logits for model in models]
        assert attached[0].counts["skip_experts"]["skipped"] == 0 < attached[1].counts["skip_experts"]["skipped"]
        torch.testing.assert_close(found, dense, atol=1e-5, rtol=1e-5)
        attached[1].detach()
        torch.testing.assert_close(models[1](ids).logits, dense, atol=0, rtol=0)


def test_generation_skips_too_and_padding_is_not_protected(tmp_path):
    _, out = skipping("mixtral", tmp_path, "{skip: experts, remove: 50%, protect: 20%}")
    model = moe.stock("mixtral", out)
    attached = attach(model)
    ids, mask = moe.tokens(rows=2, length=10), torch.ones(2, 10, dtype=torch.long)
    mask[0, :4] = 0
    found = protected(model, ids, attention_mask=mask)
    assert not found[0, :4].any() and found.sum(1).tolist() == [2, 2]
    model.generate(ids, attention_mask=mask, max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert attached.counts["skip_experts"]["skipped"] > 0


def test_stock_transformers_open_it_and_run_all_experts(tmp_path):
    dense, out = skipping("mixtral", tmp_path)
    ids = moe.tokens()
    with torch.no_grad():
        assert torch.equal(moe.stock("mixtral", dense)(ids).logits, moe.stock("mixtral", out)(ids).logits)


def test_a_plan_carries_the_thresholds(tmp_path):
    dense = moe.save("mixtral", tmp_path / "dense")
    given = plan(recipe("{skip: experts, remove: 40%, skip_layers: [0]}"), dense, QUICK)
    apply(given, dense, tmp_path / "out", QUICK)
    written = asked(tmp_path / "out")["thresholds"]
    assert written == given.steps[0].decision["thresholds"] and len(written) == 2


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("{skip: heads, remove: 20%}", "experts"),
        ("{skip: experts}", "remove"),
        ("{skip: experts, remove: 20%, protect: 1}", "protect"),
        ("{skip: experts, remove: 20%}, {prune: heads, by: wanda, remove: 20%}", "last step"),
    ],
)
def test_recipes_that_make_no_sense(step, said):
    with pytest.raises(InputError, match=said):
        recipe(step)


def test_models_that_cannot_skip(tmp_path):
    zoo.save("llama", tmp_path / "llama")
    with pytest.raises(InputError, match="no experts"):
        run(recipe("{skip: experts, remove: 20%}"), tmp_path / "llama", tmp_path / "out", QUICK)
    single = moe.save("mixtral", tmp_path / "single", num_experts_per_tok=1)
    with pytest.raises(BudgetError, match="picks one expert"):
        run(recipe("{skip: experts, remove: 20%}"), single, tmp_path / "out", QUICK)
    _, out = skipping("mixtral", tmp_path / "other")
    with pytest.raises(InputError, match=r"runtime rules \(skip_experts\)"):
        run(recipe("{skip: experts, remove: 20%}"), out, tmp_path / "again", QUICK)
    assert not (tmp_path / "again").exists()
