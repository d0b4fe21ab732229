"""The site of docs/extending.md, its statistic and its criterion work by registration alone."""

import pytest
import torch
import zoo
from page import blocks, learn

from compress.calibrate.collect import collect
from compress.checkpoint.open import open_checkpoint
from compress.errors import InputError
from compress.inputs.text import batches
from compress.model.build import load_config
from compress.pipeline import Options, run
from compress.recipe.read import parse_recipe
from compress.registry import criteria, statistics
from compress.registry.scope import Scope

RECIPE = "calibrate: {data: random, samples: 6, length: 16, batch: 4}\n" + "".join(blocks("A site", "yaml"))


@pytest.fixture(autouse=True)
def registered(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path_factory.mktemp("cache")))
    return learn("A site", monkeypatch)


def test_a_recipe_prunes_by_what_a_new_site_reads(tmp_path):
    zoo.save("llama", tmp_path / "dense", num_key_value_heads=4)
    recipe = parse_recipe(RECIPE)
    run(recipe, tmp_path / "dense", tmp_path / "out", Options(evaluate=False))
    rows, _ = batches(recipe.calibrate, None, load_config(open_checkpoint(tmp_path / "dense")))
    ids = torch.cat([batch["input_ids"] for batch in rows])
    dense, pruned = zoo.stock("llama", tmp_path / "dense"), zoo.stock("llama", tmp_path / "out")
    dense.set_attn_implementation("eager")
    with torch.no_grad():
        looks = dense(ids, output_attentions=True).attentions
    choices = set()
    for layer, weights in enumerate(looks):
        kept = weights[..., 0].mean((0, 2)).topk(2, largest=False).indices.sort().values
        before, after = (m.model.layers[layer].self_attn.q_proj.weight for m in (dense, pruned))
        assert torch.equal(after.view(2, 8, 32), before.view(4, 8, 32)[kept])
        choices.add(tuple(kept.tolist()))
    assert len(choices) > 1  # it is no accident of their order


def test_two_sites_read_at_one_weight_do_not_mix(tmp_path):
    checkpoint, batches = zoo.save("llama", tmp_path, num_key_value_heads=4), zoo.batches("llama")
    keys = {f"model.layers.{layer}.self_attn.o_proj.weight" for layer in range(3)}
    names = ("first_key", "input_mean")
    both = collect(checkpoint, zoo.graph("llama"), {name: keys for name in names}, batches)
    for name in names:
        alone = collect(checkpoint, zoo.graph("llama"), {name: keys}, batches)
        assert all(torch.equal(both[name][key], alone[name][key]) for key in keys)


def test_a_statistic_at_a_site_that_nobody_registered_is_refused(registered, tmp_path):
    statistics.add("lost", at="frist_key", sums=("first",))(registered.first_key)
    criteria.add("attentive_too", scope=Scope.INPUTS, on="in", needs=("lost",))(lambda lost: lost)
    zoo.save("llama", tmp_path / "dense")
    recipe = parse_recipe(RECIPE.replace("attentive", "attentive_too"))
    with pytest.raises(InputError, match="unknown site 'frist_key'; did you mean 'first_key'"):
        run(recipe, tmp_path / "dense", tmp_path / "out", Options(evaluate=False))
