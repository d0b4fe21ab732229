"""`propagate: pruned`: a block's statistics are those behind the pruned blocks before it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import zoo

from compress.errors import InputError
from compress.execution.baseline import Original
from compress.execution.context import Context
from compress.model.model import Model
from compress.pipeline import Options, apply, plan, run
from compress.recipe.read import parse_recipe
from compress.steps.units.decide import decide, families_of, wants
from compress.steps.units.in_sequence import in_sequence

RECIPE = """
calibrate: {data: {random: {}}, samples: 6, length: 12, batch: 2}
steps:
  - {prune: channels, by: wanda, remove: 40%%, propagate: pruned%s}
"""


def recipe(more: str = ""):
    return parse_recipe(RECIPE % more)


def context(source, given):
    return Context(source, source, Original(source.graph), given, "cpu")


def test_a_later_block_is_scored_on_what_the_pruned_ones_give(tmp_path: Path) -> None:
    source = Model.of(zoo.save("llama", tmp_path / "in"))
    step = recipe().steps[0]
    families = families_of(source.graph, step)
    (kept, _, _), stats = in_sequence(context(source, recipe()), step, families)
    assert set(kept) == {family.name for family in families}
    model = zoo.stock("llama", tmp_path / "in")
    from compress.inputs.text import batches

    rows, _ = batches(recipe().calibrate, None, source.config, 0)
    for i, layer in enumerate(model.model.layers):
        seen: list[torch.Tensor] = []
        hook = layer.mlp.down_proj.register_forward_hook(lambda m, a, o, seen=seen: seen.append(a[0].flatten(0, 1)))
        with torch.no_grad():
            for row in rows:
                model(**row)
            hook.remove()
            # Wanda, recomputed: |W| times the root of the summed squares of each input, over the sequences.
            norm = (torch.cat(seen).square().sum(0) / 6).sqrt()
            saliency = (layer.mlp.down_proj.weight.abs() * norm).sum(0)
            torch.testing.assert_close(stats["input_norm"][f"model.layers.{i}.mlp.down_proj.weight"], norm)
            mask = kept[f"model.layers.{i}.mlp.channels"]
            assert saliency[mask].min() >= saliency[~mask].max()
            layer.mlp.down_proj.weight[:, torch.from_numpy(~mask)] = 0
    assert any((kept[f"model.layers.{i}.mlp.channels"] != kept["model.layers.0.mlp.channels"]).any() for i in (1, 2))


@pytest.mark.slow
def test_a_repair_flows_on_and_the_result_is_what_was_planned(tmp_path: Path) -> None:
    zoo.save("llama", tmp_path / "in")
    given = recipe(", repair: least_squares")
    options = Options(device="cpu", evaluate=False)
    made = plan(given, tmp_path / "in", options)
    report = run(given, tmp_path / "in", tmp_path / "out", options)
    assert report is not None and report["after"]["params"] < report["before"]["params"]
    apply(made, tmp_path / "in", tmp_path / "again", options)
    from safetensors.torch import load_file

    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "again"))
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)
    dense = load_file(tmp_path / "in" / "model.safetensors")
    name = "model.layers.2.mlp.down_proj.weight"
    mask = np.isin(np.arange(48), made.steps[0].decision["kept"]["model.layers.2.mlp.channels"])
    assert not torch.allclose(one[name], dense[name][:, torch.from_numpy(mask)], atol=1e-4)  # repaired, not only sliced


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (RECIPE.replace("channels", "layers").replace("wanda", "block_influence") % "", "spans several"),
        (RECIPE.replace("wanda", "taylor") % "", "needs gradients"),
    ],
)
def test_what_cannot_be_decided_block_by_block_is_refused(tmp_path: Path, given: str, text: str) -> None:
    source = Model.of(zoo.save("llama", tmp_path))
    step = parse_recipe(given).steps[0]
    with pytest.raises(InputError, match=text):
        in_sequence(context(source, parse_recipe(given)), step, families_of(source.graph, step))


def test_any_allocator_says_how_many_stay_and_the_sequence_which(tmp_path: Path) -> None:
    source = Model.of(zoo.save("llama", tmp_path / "in"))
    given = parse_recipe(RECIPE.replace("40%%", "70%%") % ", allocate: global, widths: per-layer")
    step, asked = given.steps[0], context(source, given)
    families = families_of(source.graph, step)
    dense = asked.collect(wants(source, step, families, decide=True))
    masks = decide(asked, step, families, dense).kept
    (kept, _, _), seen = in_sequence(asked, step, families)
    counts = {name: int(mask.sum()) for name, mask in masks.items()}
    assert {name: int(mask.sum()) for name, mask in kept.items()} == counts and len(set(counts.values())) > 1
    first, last = (f"model.layers.{i}.mlp.down_proj.weight" for i in (0, 2))
    assert seen["input_norm"][first].equal(dense["input_norm"][first]), "nothing is pruned before the first block"
    assert not seen["input_norm"][last].allclose(dense["input_norm"][last], rtol=1e-3)
