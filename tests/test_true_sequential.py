"""`propagate: true_sequential`: every projection sees what the pruned ones before it give, in one run of each block."""

import moe
import pytest
import torch
import zoo
from safetensors.torch import load_file

from compress.checkpoint.open import open_checkpoint
from compress.errors import InputError
from compress.inputs.text import batches
from compress.model.build import load_config
from compress.pipeline import Options, run
from compress.recipe.read import parse_recipe

QUICK = Options(evaluate=False)
STEP = "{{prune: weights, by: {}, remove: 50%, propagate: {}}}"


def recipe(by="wanda", propagate="true_sequential"):
    step = STEP.format(by, propagate)
    return parse_recipe(f"calibrate: {{data: random, samples: 6, length: 24, batch: 3}}\nsteps: [{step}]")


def ordered(model, given):
    """The projections inside layers, in the order in which a forward comes to them."""
    names, hooks = [], []
    for name, module in model.named_modules():
        if ".layers." in name and isinstance(module, torch.nn.Linear):
            hooks.append(module.register_forward_pre_hook(lambda m, args, name=name: names.append(name)))
    model(given)
    for hook in hooks:
        hook.remove()
    return names


@pytest.mark.parametrize("name", ["llama", "opt", "qwen3"])
@torch.no_grad()
def test_wanda_projection_after_projection(name, tmp_path):
    zoo.save(name, tmp_path / "in")
    run(recipe(), tmp_path / "in", tmp_path / "out", QUICK)
    written = load_file(tmp_path / "out" / "model.safetensors")
    model = zoo.stock(name, tmp_path / "in")
    rows, _ = batches(recipe().calibrate, None, load_config(open_checkpoint(tmp_path / "in")))
    given = torch.cat([batch["input_ids"] for batch in rows])
    for place in ordered(model, given):
        module, seen = model.get_submodule(place), []
        hook = module.register_forward_pre_hook(lambda m, args, seen=seen: seen.append(args[0].flatten(0, -2)))
        model(given)  # with all that was pruned so far
        hook.remove()
        saliency = module.weight.abs() * seen[0].norm(dim=0)
        half = saliency.shape[1] // 2
        gone = saliency.argsort(dim=1)[:, :half]
        module.weight.scatter_(1, gone, 0.0)
        assert torch.equal(written[f"{place}.weight"] == 0, module.weight == 0), place
    with torch.no_grad():
        assert torch.allclose(zoo.stock(name, tmp_path / "out")(given).logits, model(given).logits, atol=1e-5)


def test_every_block_runs_once(tmp_path, monkeypatch):
    from transformers.models.llama.modeling_llama import LlamaMLP

    zoo.save("llama", tmp_path / "in")
    calls, forward = [], LlamaMLP.forward
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: calls.append(x.shape) or forward(self, x))

    def counted(propagate):
        calls.clear()
        run(recipe(propagate=propagate), tmp_path / "in", tmp_path / propagate, QUICK)
        return sum(shape[0] for shape in calls if shape[1] == 24)

    assert counted("true_sequential") == 3 * 6  # layers × samples
    assert counted("pruned") == 2 * 3 * 6


@pytest.mark.slow
def test_sparsegpt_and_blocks_of_experts(tmp_path):
    """Experts are called one by one by what the tokens choose: their blocks are changed as a whole."""
    dense = moe.save("mixtral", tmp_path / "moe")
    for by in ("wanda", "sparsegpt"):
        run(recipe(by), dense, tmp_path / by, QUICK)
        once = load_file(tmp_path / by / "model.safetensors")
        run(recipe(by, "pruned"), dense, tmp_path / f"{by}-blocks", QUICK)
        twice = load_file(tmp_path / f"{by}-blocks" / "model.safetensors")
        assert all(torch.equal(once[name], twice[name]) for name in once)
    zoo.save("llama", tmp_path / "llama")
    run(recipe("sparsegpt"), tmp_path / "llama", tmp_path / "out", QUICK)
    weight = load_file(tmp_path / "out" / "model.safetensors")["model.layers.1.mlp.down_proj.weight"]
    assert abs(float((weight == 0).float().mean()) - 0.5) < 0.02


def test_unknown_ways_are_refused():
    with pytest.raises(InputError, match="true_sequential"):
        recipe(propagate="sequential")
