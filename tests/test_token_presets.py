"""Presets that prune visual tokens: each against its method's formula over plain tensors, and on several families."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import token_methods
import token_methods_inside
import torch
import vlms
from by_hand import Hand, deep
from pruned_tokens import kept, layer_of, obeying, stages_of

from compress.errors import ModelError
from compress.files.shipped import names, shipped
from compress.recipe.read import read_recipe
from compress.recipe.token_stage import Stage
from compress.recipe.tokens import preset
from compress.runtime.tokens.expand import expanded
from compress.runtime.tokens.find import places_of

PRESETS = [name.removeprefix("tokens/") for name in names() if name.startswith("tokens/")]
NEED_CLS = ("fastervlm", "flowcut", "recoverable-compression", "visionzip", "vtc-cls")


def method(name):
    """What the preset does, by its formula."""
    python = name.replace("-", "_")
    return getattr(token_methods, python, None) or getattr(token_methods_inside, python)


@pytest.mark.parametrize("keep", [0.3, 0.45])
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_its_formula(name, keep):
    model, eager = deep()
    given = vlms.prompt("llava-clip", rows=1, seed=4)
    hand = Hand(eager, given)
    at = {}
    plan = {
        layer: [*acts, lambda hand, layer=layer: at.update({layer: hand.columns.tolist()})]
        for layer, acts in method(name)(keep).items()
    }
    expected = hand.run(plan)
    stages, began = stages_of(name, model, keep), []
    hook = model.model.language_model.layers[0].register_forward_pre_hook(lambda layer, args: began.append(args[0][0]))
    with torch.no_grad(), obeying(model, *stages):
        output = model(**given, output_hidden_states=True)
    hook.remove()
    assert {layer_of(stage) for stage in stages} == set(at)
    assert {layer: kept(output, layer) for layer in at} == at
    torch.testing.assert_close(began[0], hand.began, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.logits[0, -1], eager.lm_head(expected[-1]), rtol=1e-3, atol=1e-4)
    assert min(map(len, at.values())) < given["input_ids"].shape[1]


def runs(name, model, given, keep):
    """What a model gives and writes under a preset."""
    with torch.no_grad(), obeying(model, *stages_of(name, model, keep)) as attached:
        place = (given["attention_mask"].cumsum(1) - 1).clamp_min(0)  # as generate has it
        output = model(**given, **({} if "mm_token_type_ids" in given else {"position_ids": place}))
        counts = dict(attached.counts["tokens"])
        return output, model.generate(**given, max_new_tokens=3, do_sample=False)[:, -3:], counts


def families(name):
    return ("llava-next", "internvl" if name in NEED_CLS else "qwen2.5-vl")


@pytest.mark.parametrize(("name", "family"), [(name, family) for name in PRESETS for family in families(name)])
def test_a_preset_runs_and_what_pads_a_prompt_changes_nothing(name, family):
    model, both = vlms.vlm(family), vlms.prompt(family, pad=3)
    output, written, counts = runs(name, model, both, 0.4)
    last = max(map(layer_of, stages_of(name, model, 0.4)))
    assert 0 <= counts["kept"] < counts["tokens"] == 2 * vlms.tokens(family)
    alone, single, _ = runs(name, model, vlms.alone(both, 0, 3), 0.4)
    assert [column - 3 for column in kept(output, last) if column >= 3] == kept(alone, last)
    torch.testing.assert_close(output.logits[0, -1], alone.logits[0, -1], rtol=1e-3, atol=1e-4)
    assert written[0].tolist() == single[0].tolist()


@pytest.mark.parametrize("name", PRESETS)
def test_where_all_tokens_are_kept_nothing_changes(name):
    model, given = vlms.vlm("internvl"), vlms.prompt("internvl", pictures=2, pad=2)
    with torch.no_grad():
        dense, written = model(**given).logits, model.generate(**given, max_new_tokens=3, do_sample=False)
        with obeying(model, *stages_of(name, model, 1.0)) as attached:
            assert torch.equal(model(**given).logits, dense)
            assert attached.counts["tokens"] == {"tokens": 36, "kept": 36}
            assert torch.equal(model.generate(**given, max_new_tokens=3, do_sample=False), written)


@pytest.mark.parametrize("name", NEED_CLS)
@pytest.mark.parametrize("family", ["llava-siglip", "qwen3-vl"])
def test_towers_without_a_class_token_are_refused_with_the_cure(name, family):
    with pytest.raises(ModelError, match=r"no token for the whole picture \(CLS\); score by `queries: all`"):
        stages_of(name, vlms.vlm(family))


@pytest.mark.parametrize("family", vlms.FAMILIES)
def test_what_we_would_choose_runs_everywhere(family):
    (step,) = read_recipe("visual-tokens-25").steps
    stages, keep = step.asked
    model, given = vlms.vlm(family), vlms.prompt(family, pictures=2)
    made = expanded(stages, keep, places_of(model))
    with torch.no_grad(), obeying(model, *[stage.written() for stage in made]) as attached:
        assert torch.isfinite(model(**given).logits).all()
    counts = attached.counts["tokens"]
    assert counts["tokens"] == 4 * vlms.tokens(family) and 0.2 < counts["kept"] / counts["tokens"] < 0.35


SEVEN = SimpleNamespace(layers=range(32), tower_layers=range(24), late=0)
"""LLaVA-1.5-7B: the decoder's layers and those of CLIP."""
PUBLISHED = {
    "vtc-cls": [(0, [*range(12, 23)])],
    "hiprune": [(0, [8])],
    "catp": [(0, None), (12, [4, 10])],
    "vflowopt": [(0, None), (10, None), (20, None)],
    "transprune": [(7, [6]), (9, [6, 7, 8]), (12, [6, 7, 8, 9, 10, 11])],
    "pyramiddrop": [(8, None), (16, None), (24, None)],
    "sparsevlm": [(3, None), (7, None), (16, None)],
    "fastv": [(2, None)],
    "dart": [(2, None)],
    "flowcut": [(0, [layer]) for layer in (1, 6, 10, 14, 18, 22)],
}
SHARES = {
    "pyramiddrop": [0.5, 0.25, 0.125],
    "transprune": [0.875, 0.625, 0.125],
    "vflowopt": [0.2651, 0.2651 * 0.9833, 0.2651 * 0.9833 * 0.8773],
    "sparsevlm": [300 / 576, 200 / 576, 110 / 576],
    "aim": [0.5, 0.25, *(0.25 * (8 - i) / 8 for i in range(1, 8)), None],
    "lvlm-csp": [0.25, None, 0.1],
}


def published(name, places=SEVEN):
    stages, keep = preset(name).asked
    return expanded(stages, keep, places)


@pytest.mark.parametrize("name", PUBLISHED)
def test_layers_are_those_that_were_published(name):
    found = [(stage.layer, (stage.score or [None])[0]) for stage in published(name)]
    for (layer, term), (expected, read) in zip(found, PUBLISHED[name], strict=True):
        assert layer == expected
        assert read is None or list(term.score.arguments["layers"]) == read


def test_aim_falls_evenly_from_the_layers_that_were_published():
    qwen = SimpleNamespace(layers=range(28), tower_layers=range(24), late=0)
    assert [stage.layer for stage in published("aim", qwen)] == [0, 0, *range(15, 23)]


@pytest.mark.parametrize("name", SHARES)
def test_shares_are_those_that_were_published(name):
    assert [stage.keep for stage in published(name)] == [
        one if one is None else pytest.approx(one, rel=0.01) for one in SHARES[name]
    ]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_what_it_is_and_how_much_it_keeps(name):
    path = shipped(f"tokens/{name}")
    assert path is not None and len(path.read_text().splitlines()) <= 25
    assert len(read_recipe(f"tokens/{name}").about) > 40 and preset(name).keep is not None
    assert all(isinstance(stage, Stage) for stage in published(name))
