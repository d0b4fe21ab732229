"""Rules about visual tokens that a model cannot obey, calls that would be wrong, and recipes that make no sense."""

from __future__ import annotations

import json

import pytest
import torch
import vlms
import zoo
from pruned_tokens import obeying
from transformers import AutoModelForImageTextToText, StaticCache

import compress
from compress import cli
from compress.errors import InputError, ModelError
from compress.recipe.read import parse_recipe
from compress.runtime.tokens.find import check, places_of

HALF = {"keep": 0.5, "select": "uniform"}
CLIP, THERE = "llava-clip", {"at": {"decoder": 3}}
INSIDE = {"at": {"decoder": 2}, **HALF}


def refused(name, *stages):
    with pytest.raises(ModelError) as caught, obeying(vlms.vlm(name), *stages):
        pass
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "stages", "said"),
    [
        (CLIP, [{**HALF, "at": {"decoder": 4}}], "lies beyond the decoder, which has layers 0 to 3"),
        (CLIP, [INSIDE, HALF], "in front of it (layer 2); write the stages in their order"),
        (CLIP, [{"at": {"decoder": 2}, "select": "restore"}], "no stage inside of the decoder comes before"),
        (CLIP, [HALF, {"at": {"decoder": 2}, "select": "restore"}], "tokens that left before the decoder cannot"),
        (
            CLIP,
            [INSIDE, {**THERE, "select": "restore"}, {**HALF, **THERE, "score": ["key_norm"]}],
            "reads layer 2 of the decoder, where the tokens that come back at 3 were not; read layers from 3 on",
        ),
        ("qwen2-vl", [{**HALF, "positions": "renumber"}], "cannot be counted anew; write `positions: keep`"),
        ("gemma3", [{**HALF, "positions": "renumber"}], "cannot be counted anew; write `positions: keep`"),
        ("llava-siglip", [{"keep": 0.5, "score": [{"attention": {"queries": "cls"}}]}], "score by `queries: all`"),
        ("qwen3-vl", [{"keep": 0.5, "score": ["cls_similarity"]}], "no token for the whole picture (CLS)"),
        (CLIP, [{"keep": 0.5, "score": ["attention"]}], "the tower sees no text; write `queries: cls` or `all`"),
        (CLIP, [{**INSIDE, "score": [{"attention": {"queries": "cls"}}]}], "write `in: tower`, or `queries: last`"),
        (CLIP, [{**INSIDE, "score": ["flow"]}], "the decoder has no CLS token; write `in: tower`"),
        (CLIP, [{"keep": 0.5, "score": ["transition"]}], "use it in a stage inside of the decoder"),
        (
            CLIP,
            [{"keep": 0.5, "score": [{"attention": {"queries": "all", "layers": [7]}}]}],
            "there is no layer 7 to read: the tower has layers 0 to 2",
        ),
        (CLIP, [{**INSIDE, "score": [{"attention": {"layers": [2]}}]}], "the decoder has layers 0 to 1"),
        (CLIP, [{"keep": 0.5}], "stages.0.select: top: reads scores, and the stage has none; give it a `score`"),
        (CLIP, [{**HALF, "residual": "cell"}], "stages.0.residual: cell: reads scores, and the stage has none"),
        (
            CLIP,
            [{"keep": 0.5, "select": {"quota": {"parts": [{"share": 0.5}, {"select": "max_min"}]}}}],
            "stages.0.select: top: reads scores",
        ),
        (CLIP, [{**HALF, "keep": 0}], "0 keeps no token; to drop all of them write `select: none`"),
        (CLIP, [{**HALF, "keep": 1.5}], "1.5 is no share of the tokens; it lies above 0 and is 1 at most"),
    ],
)
def test_stages_that_do_not_fit(name, stages, said):
    assert said in refused(name, *stages)


def test_stages_that_add_pictures_first():
    model = vlms.FAMILIES["qwen3-vl"]().eval()
    model.model.visual.deepstack_visual_indexes = [0, 1]
    model.config.compress = {"version": 1, "rules": [{"kind": "tokens", "stages": [{**HALF, "at": {"decoder": 1}}]}]}
    with pytest.raises(ModelError, match=r"first 2 layers, so tokens can go before layer 0 .* or from layer 2 on"):
        compress.runtime.attach(model)


def test_models_without_pictures(tmp_path):
    zoo.save("llama", tmp_path)
    model = zoo.stock("llama", tmp_path)
    model.config.compress = {"version": 1, "rules": [{"kind": "tokens", "stages": [HALF]}]}
    with pytest.raises(ModelError, match=r"has no tower and language model .*\(compress\.registry\.token_places"):
        compress.runtime.attach(model)


def call(name="llava-clip", stage=HALF, **changed):
    model, given = vlms.vlm(name), vlms.prompt(name, rows=1)
    with torch.no_grad(), obeying(model, stage):
        return model(**{**given, **changed})


def test_caches_of_one_length():
    cache = StaticCache(config=vlms.vlm("llava-clip").config.get_text_config(), max_cache_len=64)
    with pytest.raises(ModelError, match=r"StaticCache has one length for all layers.* use the default cache"):
        call(past_key_values=cache)


def test_pictures_after_what_a_cache_has():
    model, given = vlms.vlm("llava-clip"), vlms.prompt("llava-clip", rows=1)
    words = torch.arange(1, 5)[None]
    with torch.no_grad(), obeying(model, HALF):
        for first in ({"input_ids": words}, given):
            cache = model(**first, use_cache=True).past_key_values
            mask = torch.ones(1, first["input_ids"].shape[1] + given["input_ids"].shape[1], dtype=torch.long)
            with pytest.raises(ModelError, match="give the whole conversation at once, with a new cache"):
                model(**{**given, "attention_mask": mask}, past_key_values=cache)


def test_embeddings_that_do_not_say_what_is_visual():
    model, given = vlms.vlm("llava-clip"), vlms.prompt("llava-clip", rows=1)
    embedded = model.get_input_embeddings()(given["input_ids"])
    with pytest.raises(ModelError, match="inputs_embeds do not say which tokens are visual; give input_ids"):
        call(input_ids=None, inputs_embeds=embedded)


def test_training_and_compiled_graphs(monkeypatch):
    model, given = vlms.vlm("llava-clip"), vlms.prompt("llava-clip", rows=1)
    with obeying(model, HALF):
        model.train()
        try:
            with pytest.raises(ModelError, match=r"is in training mode, .*call model\.eval\(\)"):
                model(**given)
        finally:
            model.eval()
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        with pytest.raises(ModelError, match=r"run the model without torch\.compile"):
            model(**given)


def test_text_alone_is_what_it_was():
    model, words = vlms.vlm("qwen2.5-vl"), torch.arange(1, 9)[None]
    with torch.no_grad():
        dense = model(input_ids=words).logits
        with obeying(model, HALF) as attached:
            assert torch.equal(model(input_ids=words).logits, dense)
    assert not attached.counts["tokens"]


@pytest.mark.parametrize(
    ("step", "place", "said"),
    [
        ("tokens: fastvv", "", "'fastvv' is no preset; did you mean 'fastv'?"),
        ("tokens: 3", "", "3 is neither a preset's name nor a list of stages"),
        ("{tokens: fastv, keep: 0}", "keep", "0 keeps no token"),
        ("{tokens: fastv, keep: 120%}", "keep", "is no share of the tokens"),
        ("tokens: []", "", "no stage is given; give one at least"),
        ("tokens: [{select: nearby}]", "0.select", "unknown token selection 'nearby'"),
        ("tokens: [{select: none, keep: 20%}]", "0", "`select: none` has no budget; leave out keep"),
        ("tokens: [{select: }]", "0", "is empty; write the name of a selection, or `none` in quotes"),
        ("tokens: [{score: random, keep: 20%, power: 1}]", "0", "keep and power both say how many tokens are kept"),
        ("tokens: [{score: random, at: {decoder: 0}}]", "0.at", "a stage inside starts at layer 1"),
        ("tokens: [{score: random, at: {decoder: half}}]", "0.at.decoder", "'half' is no depth"),
        ("tokens: [{score: random, at: tower}]", "0.at", "'tower' is no place; write features"),
        ("tokens: [{score: {random: {}, entropy: {}}}]", "0.score", "a term has one score"),
        ("tokens: [{score: {attention: {queries: first}}}]", "0.score", "not 'first'"),
        ("tokens: [{select: {quota: {parts: [{select: top}]}}}]", "0.select", "should have at least 2 items"),
    ],
)
def test_recipes_that_make_no_sense(step, place, said, tmp_path, capsys):
    (tmp_path / "r.yaml").write_text(f"steps:\n  - {step}\n")
    assert cli.call([str(tmp_path / "r.yaml"), str(tmp_path), str(tmp_path / "out")]) == 2
    (mistake,) = [line for line in capsys.readouterr().err.splitlines() if "r.yaml:" in line]
    where = "steps.0.keep" if place == "keep" else f"steps.0.tokens.{place}".rstrip(".")
    assert "r.yaml:2:" in mistake and f": {where}" in mistake and said in mistake


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llava")
    vlms.vlm("llava-clip").save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("tokens: [{select: max_min}]", "how many tokens are kept? give the step a `keep`, such as 25%"),
        ("{tokens: [{select: max_min, at: {decoder: 70}}], keep: 25%}", "lies beyond the decoder"),
    ],
)
def test_models_that_a_recipe_does_not_fit(llava, step, said, tmp_path, capsys):
    (tmp_path / "r.yaml").write_text(f"steps:\n  - {step}\n")
    assert cli.call([str(tmp_path / "r.yaml"), str(llava), str(tmp_path / "out")]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["fastv", "visionzip"])
def test_the_command_writes_what_stock_software_ignores_and_ours_obeys(llava, name, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.call([f"tokens/{name}", str(llava), str(out), "--no-evaluate", "-q"]) == 0, capsys.readouterr().err
    (rule,) = json.loads((out / "config.json").read_text())["compress"]["rules"]
    assert rule["kind"] == "tokens" and all("keep" in stage for stage in rule["stages"])
    stock = AutoModelForImageTextToText.from_pretrained(out).eval()
    before = AutoModelForImageTextToText.from_pretrained(llava).eval()
    given = vlms.prompt("llava-clip")
    ours = compress.load(out)
    with torch.no_grad():
        dense = before(**given).logits
        assert torch.equal(stock(**given).logits, dense)
        assert not torch.equal(ours(**given).logits, dense)
        cache = ours(**given, use_cache=True).past_key_values
    assert cache.compress_tokens.at(3).slots.columns.shape[1] < given["input_ids"].shape[1]


def test_presets_are_refused_where_they_do_not_fit(tmp_path, capsys):
    vlms.vlm("llava-siglip").save_pretrained(tmp_path / "in")
    assert cli.call(["tokens/fastervlm", str(tmp_path / "in"), str(tmp_path / "out")]) == 2
    assert "score by `queries: all`" in " ".join(capsys.readouterr().err.split())


def test_a_recipe_that_fits_is_read():
    (step,) = parse_recipe("steps: [{tokens: tokens.yaml, keep: 10%}]".replace("tokens.yaml", "dart")).steps
    stages, keep = step.asked
    assert keep == 0.1 and [stage.layer for stage in stages] == [2]
    check(places_of(vlms.vlm("llava-clip")), [stage.model_copy(update={"keep": keep}) for stage in stages])
    with pytest.raises(InputError, match="dart"):
        parse_recipe("steps: [{tokens: dartt, keep: 10%}]")
