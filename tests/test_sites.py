"""A new site, with a statistic read there and a criterion of it, works by registration alone."""

from collections.abc import Callable, Iterable, Iterator

import pytest
import torch
import zoo
from torch import Tensor, nn

from compress.attention.call import Attention
from compress.attention.watch import watch
from compress.calibrate.collect import collect
from compress.calibrate.site import Site, Undo
from compress.calibrate.totals import Totals
from compress.checkpoint.open import open_checkpoint
from compress.errors import InputError
from compress.graph.families import Family, Graph
from compress.graph.uses import uses
from compress.inputs.text import batches
from compress.model.build import load_config
from compress.pipeline import Options, run
from compress.recipe.read import parse_recipe
from compress.registry import criteria, sites, statistics
from compress.registry.scope import Scope

RECIPE = """
calibrate: {data: random, samples: 6, length: 16, batch: 4}
steps: [{prune: heads, by: attentive, remove: 50%}]
"""


class FirstKey(Site):
    """How much heads look at the first token; keys are the weights that consume the heads' values."""

    @staticmethod
    def keys(graph: Graph, family: Family, scored: Callable[[str], bool]) -> Iterable[str]:
        return [tensor for tensor, role, _ in uses(graph, family) if scored(role) and family.kind == "heads"]

    def attach(self, model: nn.Module) -> Iterator[Undo]:
        places = {model.get_submodule(key.rsplit(".", 2)[0]): key for key in self.places}

        def tell(module: nn.Module, attention: Attention) -> None:
            if module in places and not self.gather.paused:
                totals, first = self.of(places[module]), attention.rows()[..., 0]  # [batch, heads, queries]
                count = first.shape[0] * first.shape[2]
                weight = self.gather.token_weight(places[module], count)
                totals.count(count, weight)
                weight = torch.ones(count) if weight is None else weight
                totals.add("first", (first.transpose(0, 1).flatten(1) @ weight).double())

        yield watch(model, tell)


def first_key(totals: Totals) -> Tensor:
    """Mean weight of the first token, `[in]`: every channel of a head has the head's."""
    return (totals["first"] / totals.tokens).repeat_interleave(8)


def attentive(first_key: Tensor) -> Tensor:
    """Heads that look elsewhere than at the first token matter."""
    return 1 - first_key


@pytest.fixture(autouse=True)
def registered(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path_factory.mktemp("cache")))
    for registry in (sites, statistics, criteria):
        registry.names()
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))  # what is registered here is forgotten
    sites.add("first_key")(FirstKey)
    statistics.add("first_key", at="first_key", sums=("first",))(first_key)
    criteria.add("attentive", scope=Scope.INPUTS, on="in", needs=("first_key",))(attentive)


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


def test_a_statistic_at_a_site_that_nobody_registered_is_refused(tmp_path):
    statistics.add("lost", at="frist_key", sums=("first",))(first_key)
    criteria.add("attentive_too", scope=Scope.INPUTS, on="in", needs=("lost",))(attentive)
    zoo.save("llama", tmp_path / "dense")
    recipe = parse_recipe(RECIPE.replace("attentive", "attentive_too"))
    with pytest.raises(InputError, match="unknown site 'frist_key'; did you mean 'first_key'"):
        run(recipe, tmp_path / "dense", tmp_path / "out", Options(evaluate=False))
