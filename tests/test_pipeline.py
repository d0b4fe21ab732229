"""Recipe in, folder out: what is written opens with stock transformers and computes the masked dense model."""

import json
from pathlib import Path

import moe
import pytest
import torch
import transformers
import zoo
from safetensors.torch import load_file, save_file

import compress
from compress.checkpoint.ours import MARK
from compress.errors import BudgetError, InputError, ModelError, VerifyError
from compress.pipeline import Options, apply, plan, run
from compress.recipe.read import parse_recipe, read_recipe

RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.yaml"))
ELSEWHERE = {"darex": "tests/test_delta.py", "sd-47-35": "tests/test_pipelines.py"}  # no model, and several
ELSEWHERE |= {"vocab": "it needs a tokenizer and a text: tests/test_vocabulary_step.py"}
ELSEWHERE |= {"visual-tokens-25": "it needs pictures: tests/test_token_presets.py"}
RECIPES = [path for path in RECIPES if path.stem not in ELSEWHERE]
EXPERTS = ("reap-50", "skip-experts", "stun-40", "uncurl")
SPARSE = {**dict.fromkeys(("ecoflap-50", "gblm-50", "magnitude-50", "random-erk-50", "sparsegpt-50"), 0.5)}
SPARSE |= {"wanda-50": 0.5, "wanda-2-4": 0.5, "owl-60": 0.6}
"""The share of the weights inside blocks that is zero, by the names of the recipes."""
TINY = ["calibrate.data=random", "calibrate.samples=4", "calibrate.length=16"]
QUICK = Options(evaluate=False)


@pytest.fixture
def llama(tmp_path):
    zoo.save("llama", tmp_path / "llama", num_hidden_layers=4)
    return tmp_path / "llama"


def recipe(*steps, samples=4):
    text = f"calibrate: {{data: random, samples: {samples}, length: 16}}\nsteps:\n" + "".join(
        f"- {step}\n" for step in steps
    )
    return parse_recipe(text)


def opened(folder):
    """As any user would, every tensor in its place."""
    config = json.loads((folder / "config.json").read_text())
    causal = any(word in config["architectures"][0] for word in ("CausalLM", "LMHead"))
    auto = transformers.AutoModelForCausalLM if causal else transformers.AutoModel
    remote = "auto_map" in config
    model, info = auto.from_pretrained(folder, output_loading_info=True, trust_remote_code=remote)
    assert not any(info.values()), info
    return model.eval()


def zeros(folder):
    """The share of all projections' weights inside the blocks that is zero."""
    model = zoo.stock("llama", folder)
    inside = [model.get_parameter(name) for name in zoo.projections(model, ("model.layers",))]
    return sum(int((weight == 0).sum()) for weight in inside) / sum(weight.numel() for weight in inside)


@pytest.mark.parametrize("name", zoo.few((path.stem for path in RECIPES), ("flap-20", "wanda-50", "layers-25")))
def test_every_shipped_recipe_runs(name, llama, tmp_path):
    path = next(path for path in RECIPES if path.stem == name)
    given, model_in = read_recipe(path, TINY), llama
    if path.stem in EXPERTS:
        model_in = moe.save("mixtral", tmp_path / "moe")
    elif path.stem == "llm-pruner-20":  # leaves six layers whole
        zoo.save("llama", model_in := tmp_path / "deep", num_hidden_layers=8)
    report = run(given, model_in, tmp_path / "out", QUICK)
    if path.stem == "skip-experts":
        assert report["after"]["params"] == report["before"]["params"]
    elif given.steps[0].prune == "weights":
        assert report["after"]["params"] == report["before"]["params"]
        assert zeros(tmp_path / "out") == pytest.approx(SPARSE[path.stem], abs=0.01)
    else:
        assert report["after"]["params"] < report["before"]["params"]
    assert any("verified" in note for note in report["notes"])
    model = opened(tmp_path / "out")
    assert torch.isfinite(model(torch.ones(1, 5, dtype=torch.long)).logits).all()
    stored = sum(tensor.numel() for tensor in load_file(tmp_path / "out" / "model.safetensors").values())
    assert stored == report["after"]["params"]


@pytest.mark.parametrize("name", zoo.few(["gpt2", "phi3", "opt", "gpt_neox", "bert", "distilbert", "qwen3", "t5"]))
def test_other_architectures(name, tmp_path):
    zoo.save(name, tmp_path / "in")
    made = recipe("{prune: channels, by: {magnitude: {norm: l2}}, remove: 25%}")
    report = run(made, tmp_path / "in", tmp_path / "out", QUICK)
    assert any("equal to the masked dense" in note for note in report["notes"])
    before, after = json.loads((tmp_path / "in/config.json").read_text()), (tmp_path / "out/config.json").read_text()
    assert json.loads(after)["architectures"] == before["architectures"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("gpt_neox", "{prune: heads, by: random, remove: 25%, widths: per-layer}"),  # stored under an older name
        ("gpt2", "{prune: layers, by: random, remove: 30%}"),
        ("gpt2", "{prune: [heads, channels], by: fluctuation, remove: 25%, widths: per-layer, repair: bias}"),
        ("bert_encoder", "{prune: [heads, channels], by: fluctuation, remove: 25%, repair: least_squares}"),
    ],
)
def test_harder_architectures(name, step, tmp_path):
    zoo.save(name, tmp_path / "in")
    report = run(recipe(step), tmp_path / "in", tmp_path / "out", QUICK)
    assert any("equal to the masked dense" in note for note in report["notes"])
    opened(tmp_path / "out")


def test_files_beside_the_weights(llama, tmp_path):
    (llama / "merges.txt").write_text("a b")
    (llama / "README.md").write_text("---\nlicense: mit\n---\nold")
    run(recipe("{prune: channels, by: random, remove: 20%}"), llama, tmp_path / "out", QUICK)
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"merges.txt", "plan.json", "recipe.yaml", "report.json", "report.html", "README.md"} <= names
    assert "license: mit" in (tmp_path / "out/README.md").read_text()
    assert {name for name in names if name.startswith(".")} == {MARK}
    again = read_recipe(tmp_path / "out/recipe.yaml")
    assert again.steps[0].remove == pytest.approx(0.2)


def test_what_a_plan_says_is_what_run_does(llama, tmp_path):
    made = recipe("{prune: [heads, channels], by: fluctuation, remove: 30%, allocate: standardized, repair: bias}")
    decided = plan(made, llama)
    run(made, llama, tmp_path / "run", QUICK)
    (tmp_path / "plan.json").write_text(decided.dump())
    apply(tmp_path / "plan.json", llama, tmp_path / "applied", QUICK)
    one, other = (load_file(tmp_path / folder / "model.safetensors") for folder in ("run", "applied"))
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert (tmp_path / "run/config.json").read_text() == (tmp_path / "applied/config.json").read_text()
    assert decided.after["bytes"] == sum(t.numel() * t.element_size() for t in one.values())
    zoo.save("llama", tmp_path / "other", num_hidden_layers=4, intermediate_size=64)
    with pytest.raises(InputError, match="not the model of the plan"):
        apply(tmp_path / "plan.json", tmp_path / "other", tmp_path / "more", QUICK)


@pytest.mark.slow
def test_a_bias_repair_adds_biases_where_the_config_has_a_switch(llama, tmp_path):
    run(recipe("{prune: channels, by: wanda, remove: 25%, repair: bias}"), llama, tmp_path / "out", QUICK)
    model = opened(tmp_path / "out")
    assert isinstance(model, transformers.LlamaForCausalLM)
    assert model.model.layers[0].mlp.down_proj.bias.abs().max() > 0
    assert model.model.layers[0].mlp.up_proj.bias.abs().max() == 0


@pytest.mark.slow
def test_a_bias_where_there_is_none_is_refused_with_its_cures(tmp_path):
    zoo.save("gemma2", tmp_path / "in")
    step = "{{prune: channels, by: wanda, remove: 25%, repair: {}, widths: {}}}"
    with pytest.raises(InputError, match=r"least_squares.*per-layer"):
        run(recipe(step.format("bias", "uniform")), tmp_path / "in", tmp_path / "out", QUICK)
    assert not (tmp_path / "out").exists()
    run(recipe(step.format("least_squares", "uniform")), tmp_path / "in", tmp_path / "native", QUICK)
    report = run(recipe(step.format("bias", "per-layer")), tmp_path / "in", tmp_path / "generic", QUICK)
    assert "trust_remote_code" in report["load"]
    assert opened(tmp_path / "generic").model.layers[0].mlp.down_proj.bias.abs().max() > 0


@pytest.mark.slow
def test_repairs_lessen_the_error(llama, tmp_path):
    ids = torch.randint(0, zoo.VOCABULARY, (8, 16), generator=torch.Generator().manual_seed(3))
    dense = zoo.stock("llama", llama)(ids).logits
    errors = {}
    for repair in ("", "repair: least_squares, "):
        made = recipe(f"{{prune: channels, by: wanda, {repair}remove: 50%}}", samples=64)
        run(made, llama, tmp_path / "out", Options(evaluate=False, force=True))
        errors[repair] = (opened(tmp_path / "out")(ids).logits - dense).square().mean().item()
    assert errors["repair: least_squares, "] < errors[""]


@pytest.mark.slow
def test_steps_build_on_each_other(llama, tmp_path):
    made = recipe(
        "{prune: layers, by: block_influence, remove: 25%}",
        "{prune: channels, by: wanda, until: 50%}",
    )
    report = run(made, llama, tmp_path / "out", QUICK)
    assert report["after"]["params"] <= 0.5 * report["before"]["params"]
    layers = next(row for row in report["families"] if row["kind"] == "layers")
    assert layers["kept"] == 3
    assert len(layers["removed"]) == 1
    channels = [row for row in report["families"] if row["kind"] == "channels"]
    assert [row["kept"] for row in channels].count(0) == 1
    assert opened(tmp_path / "out").config.num_hidden_layers == 3
    assert len(json.loads((tmp_path / "out/plan.json").read_text())["steps"]) == 2


def test_ties_stay_ties(llama, tmp_path):
    run(recipe("{prune: hidden, by: {magnitude: {}}, remove: 25%}"), llama, tmp_path / "out", QUICK)
    assert "lm_head.weight" not in load_file(tmp_path / "out/model.safetensors")
    model = opened(tmp_path / "out")
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.slow
def test_half_precision_stays(llama, tmp_path):
    state = {name: tensor.bfloat16() for name, tensor in load_file(llama / "model.safetensors").items()}
    save_file(state, llama / "model.safetensors", {"format": "pt"})
    run(recipe("{prune: [heads, channels], by: wanda, remove: 30%}"), llama, tmp_path / "out", QUICK)
    assert {t.dtype for t in load_file(tmp_path / "out/model.safetensors").values()} == {torch.bfloat16}


@pytest.mark.slow
def test_skip(llama, tmp_path):
    made = recipe(
        "{prune: channels, by: random, remove: 20%, widths: per-layer, skip: ['model.layers.0.*'], skip_layers: [-1]}"
    )
    run(made, llama, tmp_path / "out", QUICK)
    widths = [layer.mlp.up_proj.out_features for layer in opened(tmp_path / "out").model.layers]
    assert widths[0] == widths[3] == 48 > max(widths[1:3])
    made = recipe("{prune: layers, by: random, remove: 50%, skip_layers: [0, -1]}")
    run(made, llama, tmp_path / "layers", QUICK)
    decision = json.loads((tmp_path / "layers/plan.json").read_text())["steps"][0]["decision"]
    assert decision["kept"]["model.layers.layers"] == [0, 3]
    with pytest.raises(InputError, match="no family or tensor"):
        run(recipe("{prune: channels, by: random, remove: 20%, skip: [nothing]}"), llama, tmp_path / "x", QUICK)


@pytest.mark.parametrize(
    ("step", "error", "words"),
    [
        ("{prune: heads, by: random, remove: 99%}", BudgetError, "let at least that much stay"),
        ("{prune: channels, by: random, remove: 1%, round: 48}", BudgetError, "nothing can be removed"),
        ("{prune: heads, by: random, until: 90%}", BudgetError, "remain"),
        ("{prune: hidden, by: random, remove: 20%, repair: bias}", InputError, "this step removes none"),
    ],
)
def test_refusals_leave_nothing(step, error, words, llama, tmp_path):
    with pytest.raises(error, match=words):
        run(recipe(step), llama, tmp_path / "out", QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["llama"]


def test_nan_in_a_weight(llama, tmp_path):
    state = load_file(llama / "model.safetensors")
    state["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(state, llama / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"up_proj.*NaN"):
        run(recipe("{prune: heads, by: random, remove: 20%}"), llama, tmp_path / "out", QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["llama"]


def test_a_missing_tensor(llama, tmp_path):
    state = load_file(llama / "model.safetensors")
    del state["model.layers.1.mlp.up_proj.weight"]
    save_file(state, llama / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="up_proj"):
        run(recipe("{prune: heads, by: random, remove: 20%}"), llama, tmp_path / "out", QUICK)


def _flip(folder):
    state = load_file(folder / "model.safetensors")
    state["model.layers.0.mlp.up_proj.weight"] = state["model.layers.0.mlp.up_proj.weight"].flip(0)
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def _other_activation(folder):
    (folder / "config.json").write_text((folder / "config.json").read_text().replace('"silu"', '"relu"'))


def _wider(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(_flip, "not the kept part"), (_other_activation, "masked dense model"), (_wider, "config.json asks for")],
)
def test_a_wrong_result_is_found_and_kept_aside(spoil, words, llama, tmp_path, monkeypatch):
    from compress.surgery import rewrite as writing

    def wrong(source, edit, folder):
        rewrite(source, edit, folder)
        spoil(folder)

    rewrite = writing.rewrite
    monkeypatch.setattr(writing, "rewrite", wrong)
    with pytest.raises(VerifyError, match=words):
        run(recipe("{prune: channels, by: random, remove: 20%}"), llama, tmp_path / "out", QUICK)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["llama", "out.partial"]


def test_evaluation_without_a_tokenizer_measures_latency(llama, tmp_path):
    report = compress.run(recipe("{prune: channels, by: random, remove: 20%}"), llama, tmp_path / "out")
    assert report["after"]["latency"]["seconds"] > 0
    assert any("no tokenizer" in note for note in report["notes"])


@pytest.mark.slow
def test_pruning_what_was_pruned(llama, tmp_path):
    step = "{prune: channels, by: random, remove: 20%, widths: per-layer, skip_layers: [0]}"
    run(recipe(step), llama, tmp_path / "once", QUICK)
    run(recipe(step), tmp_path / "once", tmp_path / "twice", QUICK)
    widths = [layer.mlp.up_proj.out_features for layer in opened(tmp_path / "twice").model.layers]
    assert widths[0] == 48 > max(widths[1:])
