"""docs/extending.md: every part on the page is registered from outside the package, and used by its recipe."""

from __future__ import annotations

import json

import numpy as np
import page
import pytest
import torch
import zoo
from safetensors.torch import load_file

import compress
from compress import cli, registry
from compress.checkpoint.open import open_checkpoint
from compress.errors import InputError, ModelError, VerifyError
from compress.inputs.text import batches
from compress.model.build import load_config
from compress.pipeline import Options
from compress.recipe.read import parse_recipe
from compress.runtime import attach

LONGEST = 40
"""Lines of an example."""
NAME = "model.embed_tokens.weight"
QUICK = Options(evaluate=False)
CALIBRATE = "calibrate: {data: random, samples: 4, length: 16}\n"


@pytest.fixture
def learn(monkeypatch):
    """Registers what a section's Python does, as a package of others would; returns the section's recipe."""

    def run(title: str) -> str:
        page.learn(title, monkeypatch)
        return CALIBRATE + "".join(page.blocks(title, "yaml"))

    return run


@pytest.fixture
def llama(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    zoo.save("llama", tmp_path / "in")
    return tmp_path / "in"


def test_examples_are_short():
    for title in page.TITLES:
        (code,) = page.blocks(title, "python")
        assert 0 < len([line for line in code.splitlines() if line.strip()]) <= LONGEST


def test_a_step_kind(learn, llama, tmp_path):
    text = learn("A step kind")
    report = compress.run(parse_recipe(text), llama, tmp_path / "out", QUICK)
    dense, found = load_file(llama / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}
    assert found.keys() == dense.keys() and found[NAME].equal(dense[NAME].bfloat16())
    assert report["after"]["bytes"] < report["before"]["bytes"] / 2
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert [step["kind"] for step in plan["steps"]] == ["prune", "cast"]
    assert plan["steps"][1]["decision"] == {"dtype": "bfloat16"}
    assert any("every tensor is the input's, rounded" in note for note in report["notes"])
    compress.apply(tmp_path / "out" / "plan.json", llama, tmp_path / "again", QUICK)
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert all(again[name].equal(tensor) for name, tensor in found.items())


def test_a_wrong_claim_of_a_step_kind_is_found(learn, llama, tmp_path, monkeypatch):
    text = learn("A step kind")
    kind = registry.steps.get("cast").target
    edit = kind.edit

    def wrong(self, *given):
        made = edit(self, *given)
        produce = made.produce
        object.__setattr__(made, "produce", lambda put: produce(lambda name, tensor: put(name, tensor * 2)))
        return made

    monkeypatch.setattr(kind, "edit", wrong)
    with pytest.raises(VerifyError, match="is not the input's, rounded"):
        compress.run(parse_recipe(text), llama, tmp_path / "out", QUICK)
    assert not (tmp_path / "out").exists()


def test_the_settings_of_a_step_kind_are_the_recipes_schema(learn):
    learn("A step kind")
    with pytest.raises(InputError, match=r"recipe:2:9: steps\.0\.cast: .*'bfloat16' or 'float16', not 'int8'"):
        parse_recipe("steps:\n- cast: int8\n")
    with pytest.raises(InputError, match=r"unknown key; did you mean 'cast'"):
        parse_recipe("steps:\n- castt: bfloat16\n")


def test_a_kind_that_cannot_be_replayed_is_refused(learn, llama, tmp_path, monkeypatch):
    text = learn("A step kind")
    made = compress.pipeline.plan(parse_recipe(text), llama, QUICK)
    monkeypatch.setattr(registry.steps.get("cast").target, "replayable", False)
    with pytest.raises(InputError, match=r"steps\.1: `cast` cannot be executed from a plan"):
        compress.apply(made, llama, tmp_path / "out", QUICK)


def test_what_was_cast_opens(learn, llama, tmp_path):
    text = learn("A step kind")
    compress.run(parse_recipe(text), llama, tmp_path / "out", QUICK)
    assert open_checkpoint(tmp_path / "out").config["dtype"] == "bfloat16"
    import transformers

    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").dtype == torch.bfloat16


PARTS = {
    "A step kind": {"steps": "cast"},
    "A criterion": {"criteria": "output_energy"},
    "A criterion that learns": {"criteria": "unshared"},
    "An allocator": {"allocators": "deeper"},
    "A site": {"sites": "first_key", "statistics": "first_key", "criteria": "attentive"},
    "A kind of inputs": {"inputs": "signal"},
    "A task": {"tasks": "denoising"},
    "An export format": {"formats": "npz"},
    "A runtime rule": {"rules": "clip_inputs"},
}


def test_every_example_registers_one_part_from_outside(learn):
    known = {(kind, name) for kind, parts in registry.registries().items() for name in parts.names()}
    for title in page.TITLES:
        learn(title)
        found = {(kind, name) for kind, parts in registry.registries().items() for name in parts.names()}
        assert found - known == set(PARTS[title].items())
        assert all(registry.registries()[kind].get(name).about for kind, name in found - known)
        known = found


def test_a_criterion_keeps_the_channels_whose_loss_costs_the_output_most(learn, llama, tmp_path):
    recipe = parse_recipe(learn("A criterion"))
    compress.run(recipe, llama, tmp_path / "out", QUICK)
    dense, pruned = zoo.stock("llama", llama), zoo.stock("llama", tmp_path / "out")
    seen = {}
    for layer in dense.model.layers:
        layer.mlp.down_proj.register_forward_pre_hook(lambda module, given: seen.update({module: given[0]}))
    rows, _ = batches(recipe.calibrate, None, load_config(open_checkpoint(llama)))
    with torch.no_grad():
        dense(torch.cat([batch["input_ids"] for batch in rows]))
    for before, after in zip(dense.model.layers, pruned.model.layers, strict=True):
        weight, x = before.mlp.down_proj.weight, seen[before.mlp.down_proj].flatten(0, 1)
        lost = torch.stack([(x[:, [i]] @ weight[:, [i]].T).square().sum() for i in range(weight.shape[1])])
        kept = lost.topk(after.mlp.down_proj.weight.shape[1]).indices.sort().values
        assert len(kept) == 36 and torch.equal(after.mlp.down_proj.weight, weight[:, kept])


def test_relative_energies_of_a_layer_sum_to_one(learn):
    learn("A criterion")
    entry = registry.criteria.get("output_energy")
    weight, norm = torch.tensor([[3.0, 1.0], [4.0, 0.0]]), torch.tensor([1.0, 5.0])
    assert entry.bind({})(weight, norm).tolist() == [25, 25]
    assert entry.bind({"relative": True})(weight, norm).tolist() == [0.5, 0.5]


def test_a_criterion_learns_of_all_layers(learn, llama, tmp_path):
    compress.run(parse_recipe(learn("A criterion that learns")), llama, tmp_path / "out", QUICK)
    dense, pruned = (zoo.stock("llama", folder).model.layers for folder in (llama, tmp_path / "out"))
    columns = torch.cat([layer.mlp.down_proj.weight.detach() for layer in dense], dim=1)
    shared = torch.linalg.svd(columns.double()).U[:, :2]
    for before, after in zip(dense, pruned, strict=True):
        weight = before.mlp.down_proj.weight.detach()
        outside = (weight.double() - shared @ shared.T @ weight.double()).norm(dim=0)
        kept = outside.topk(36).indices.sort().values
        assert torch.equal(after.mlp.down_proj.weight, weight[:, kept])


def test_an_allocator_takes_more_of_later_blocks(learn, llama, tmp_path):
    text = learn("An allocator")
    compress.run(parse_recipe(text), llama, tmp_path / "out", QUICK)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    lost = [48 - len(tensors[f"model.layers.{layer}.mlp.up_proj.weight"]) for layer in range(3)]
    assert sum(lost) == 36
    assert lost == pytest.approx([12 * 0.2, 12, 12 * 1.8], abs=1)
    with pytest.raises(InputError, match="less than 1"):
        parse_recipe(text.replace("0.8", "1.5"))
    with pytest.raises(InputError, match="widths: per-layer"):
        compress.run(parse_recipe(text.replace("widths: per-layer", "round: 1")), llama, tmp_path / "tied", QUICK)


def test_an_export_format(learn, llama, tmp_path):
    report = compress.run(parse_recipe(learn("An export format")), llama, tmp_path / "out", QUICK)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    with np.load(tmp_path / "out" / "npz" / "weights.npz") as arrays:
        assert set(arrays) == set(tensors)
        assert all(np.array_equal(arrays[name], tensors[name].half().numpy()) for name in tensors)
    assert report["exports"]["npz"]["result"]["arrays"] == len(tensors)
    assert "`npz/weights.npz` has the weights" in (tmp_path / "out" / "README.md").read_text()
    assert cli.call(["export", str(llama), "--to", "npz", "--dtype", "float16", "-o", str(tmp_path / "npz")]) == 0
    with np.load(tmp_path / "npz" / "weights.npz") as arrays:
        assert arrays[NAME].dtype == np.float16


def test_a_runtime_rule(learn, llama):
    learn("A runtime rule")
    (asked,) = page.blocks("A runtime rule", "json")
    config = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(json.dumps({**config, **json.loads(asked)}))
    model, ids = zoo.stock("llama", llama), torch.arange(3, 15)[None]
    given = []
    place = model.model.layers[1].mlp.down_proj
    with torch.no_grad():
        before = model(ids).logits
        with attach(model) as attached:
            place.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
            clipped = model(ids).logits
        assert torch.equal(model(ids).logits, before) and not torch.equal(clipped, before)
    inside, outside = given
    assert torch.equal(inside, outside.clamp(-0.01, 0.01))
    assert attached.counts == {"clip_inputs": {"values": 12 * 48, "clipped": int((outside.abs() > 0.01).sum())}}
    model.config.compress["rules"][0]["limits"] = {"model.layers.7": 1.0}
    with pytest.raises(ModelError, match=r"clip_inputs: limits: LlamaForCausalLM has no module model\.layers\.7"):
        attach(model)


def test_a_runtime_rule_follows_its_blocks(learn):
    learn("A runtime rule")
    rule = registry.rules.get("clip_inputs").target(limits={"layers.0.up": 1.0, "layers.1.up": 2.0})
    assert rule.renumbered({"layers.0": None, "layers.1": "layers.0"}).limits == {"layers.0.up": 2.0}
