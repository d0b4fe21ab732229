"""A plan from a config alone says what the plan with weights says, as far as it can, and is not executed."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import moe
import pytest
import zoo

from compress import cli
from compress.errors import BudgetError, ConfigAloneError, InputError
from compress.pipeline import Options, apply, plan
from compress.recipe.read import parse_recipe, read_recipe

LARGE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "num_hidden_layers": 4,
    "vocab_size": 128256,
    "dtype": "bfloat16",
}
"""Llama 3 70B, with 4 layers of its 80."""

TEXT = "calibrate: {data: random, samples: 4, length: 16}\nsteps:\n"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Every model `name`, and `name-alone` with its config and nothing else."""
    there = tmp_path_factory.mktemp("models")
    zoo.save("llama", there / "llama")
    zoo.save("gpt2", there / "gpt2")
    moe.save("mixtral", there / "mixtral")
    for name in ("llama", "gpt2", "mixtral"):
        (there / f"{name}-alone").mkdir()
        shutil.copy(there / name / "config.json", there / f"{name}-alone")
    return there


def both(models, name, text):
    """The plans of a recipe with weights and without."""
    recipe = parse_recipe(text if "steps:" in text else TEXT + text)
    return plan(recipe, models / name), plan(recipe, models / f"{name}-alone")


@pytest.mark.parametrize(
    ("model", "steps"),
    [
        ("llama", "- {prune: [heads, channels], by: random, remove: 30%}"),
        ("gpt2", "- {prune: [heads, channels], by: random, keep: {flops: 70%}, allocate: global, widths: per-layer}"),
        ("llama", "- {prune: layers, by: random, remove: 30%}\n- {prune: weights, by: random, until: 50%}"),
        ("mixtral", "- {prune: experts, by: random, remove: 25%}"),
        ("llama", "- {prune: weights, by: wanda, pattern: 2:4}"),
        ("llama", "- {prune: weights, by: magnitude, remove: 50%, allocate: erk}"),
    ],
)
def test_what_reads_no_weight_is_decided_as_ever(model, steps, models):
    whole, alone = both(models, model, steps)
    assert [replace(step, notes=[]) for step in alone.steps] == [replace(step, notes=[]) for step in whole.steps]
    assert (whole.config_only, alone.config_only) == (False, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "steps"),
    [
        ("llama", "- {prune: [heads, channels], by: wanda, remove: 30%}"),
        ("gpt2", "- {prune: channels, by: taylor, remove: 30%, round: 8}"),
        ("llama", "- {prune: queries, by: magnitude, remove: 50%, repair: bias, widths: per-layer}"),
        ("llama", "- {prune: [heads, channels], by: wanda, remove: 25%, propagate: pruned}"),
        ("llama", "- {prune: hidden, by: magnitude, remove: 25%}\n- {prune: channels, by: activation, until: 40%}"),
        ("llama", "- {prune: layers, by: block_influence, remove: 30%}"),
        ("mixtral", "- {prune: experts, by: reap, remove: 25%}"),
        ("mixtral", "- {prune: experts, by: behaviour, remove: 25%, merge: average}"),
    ],
)
def test_of_what_reads_weights_counts_and_sizes_are_known(model, steps, models):
    whole, alone = both(models, model, steps)
    for known, step in zip(alone.steps, whole.steps, strict=True):
        assert known.decision == {"counts": {name: len(kept) for name, kept in step.decision["kept"].items()}}
        assert (known.before, known.after, known.config) == (step.before, step.after, step.config)
        assert known.opens_with == step.opens_with


@pytest.mark.parametrize(
    ("model", "steps", "said"),
    [
        ("llama", "- {prune: channels, by: magnitude, remove: 30%, allocate: global, widths: per-layer}", "uniform`"),
        ("llama", "- {prune: [heads, channels], by: wanda, remove: 30%, allocate: standardized}", "depends on scores"),
        ("llama", "- {prune: [heads, channels], by: magnitude, remove: 30%, allocate: milp}", "depends on scores"),
        ("llama", "- {prune: channels, by: cfsp, remove: 20%, allocate: coarse_to_fine, widths: per-layer}", "scores"),
        ("llama", "- {prune: weights, by: wanda, remove: 50%, allocate: owl}", "layer ratio reads weights"),
        ("llama", "- {prune: weights, by: wanda, remove: 50%, allocate: ecoflap}", "layer ratio reads weights"),
        ("mixtral", "- {skip: experts, remove: 50%}", "measured on text"),
    ],
)
def test_what_depends_on_scores_is_refused_with_a_cure(model, steps, said, models):
    with pytest.raises(ConfigAloneError, match=r"^steps\.0: a config alone is not enough") as caught:
        plan(parse_recipe(TEXT + steps), models / f"{model}-alone")
    assert said in str(caught.value) and "give a folder that holds the weights too" in str(caught.value)


def test_a_budget_that_cannot_be_met_is_told(models):
    with pytest.raises(BudgetError, match=r"steps\.0: at most"):
        plan(parse_recipe(TEXT + "- {prune: heads, by: wanda, remove: 90%}"), models / "llama-alone")


@pytest.mark.slow
def test_large_matrices_are_planned_without_being_held(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps(LARGE))
    file = tmp_path / "plan.json"
    assert cli.call(["plan", "wanda-sp-20", str(tmp_path), "--to", str(file), "--json"]) == 0
    found = json.loads(file.read_text())
    assert json.loads(capsys.readouterr().out) == found
    assert found["config_only"]
    assert found["steps"][0]["config"].keys() >= {"intermediate_size", "num_attention_heads", "num_key_value_heads"}
    before, after = (found["steps"][0][side]["params"] for side in ("before", "after"))
    layer = 2 * 8192 * (8192 + 1024) + 3 * 8192 * 28672 + 2 * 8192
    assert before == 4 * layer + 2 * 8192 * 128256 + 8192
    assert 0.79 < (after - 2 * 8192 * 128256) / (4 * layer) < 0.81


def test_the_table_says_that_it_is_from_the_config_and_the_stages_are_true(models, capsys):
    assert cli.call(["plan", "wanda-sp-20", str(models / "llama-alone")]) == 0
    said = capsys.readouterr()
    shown = " ".join(said.out.split())
    assert "from config.json alone" in shown and "channels kept" in shown and "stock transformers" in shown
    assert "stages: read · decide\n" in said.err and "calibrat" not in said.err


def test_such_a_plan_is_not_executed(models, tmp_path):
    made = plan(read_recipe("random-20"), models / "llama", config_only=True)
    assert made.config_only
    (tmp_path / "plan.json").write_text(made.dump())
    for given in (made, tmp_path / "plan.json"):
        with pytest.raises(InputError, match=r"made from a config alone.* run the recipe"):
            apply(given, models / "llama", tmp_path / "out", Options(evaluate=False))
    assert not (tmp_path / "out").exists()


def test_a_run_needs_weights(models, tmp_path, capsys):
    assert cli.call(["random-20", str(models / "llama-alone"), str(tmp_path / "out")]) == 2
    assert "a config alone is enough for `compress inspect` and `compress plan`" in capsys.readouterr().err


class Hub:
    """Gives the config, or the whole model, and remembers what was asked for."""

    def __init__(self, model: Path, place: Path) -> None:
        self.model, self.place, self.asked = model, place, []

    def __call__(self, name, *, revision=None, allow_patterns=None, ignore_patterns=None):
        self.asked.append("config" if "config.json" in (allow_patterns or ()) else "all")
        if self.asked[-1] == "all":
            return self.model
        folder = self.place / f"fetched-{len(self.asked)}"
        folder.mkdir()
        return Path(shutil.copy(self.model / "config.json", folder)).parent


@pytest.mark.parametrize(
    ("recipe", "config_only", "asked"),
    [
        ("random-20", None, ["config"]),
        ("magnitude-20", None, ["config", "all"]),
        ("magnitude-20", True, ["config"]),
        ("random-20", False, ["all"]),
    ],
)
def test_of_the_hub_weights_are_fetched_where_they_are_read(recipe, config_only, asked, models, tmp_path, monkeypatch):
    hub = Hub(models / "llama", tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub)
    made = plan(read_recipe(recipe), "owner/name", config_only=config_only)
    assert hub.asked == asked
    assert made.config_only == ("all" not in asked)
