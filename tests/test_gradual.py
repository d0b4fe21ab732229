"""Pruning while a Trainer trains, and the loss that is foreseen of it."""

import json

import numpy as np
import pytest
import torch
import zoo
from torch import nn
from transformers import (
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from compress import cli
from compress.errors import InputError, ModelError
from compress.train.gradual import GradualPruning, prunable
from compress.train.ramp import CubicRamp
from compress.train.scaling import BESIROGLU, HOFFMANN, SparseRun

STEPS = 20
BLOCK = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def llama():
    set_seed(0)
    return LlamaForCausalLM(zoo.ARCHITECTURES["llama"].configuration())


def texts():
    tokens = torch.randint(3, zoo.VOCABULARY, (2 * STEPS, 12), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": row, "labels": row} for row in tokens]


def trainer(model, folder, *callbacks, **changes):
    arguments = {
        "output_dir": str(folder),
        "max_steps": STEPS,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-2,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
    }
    return Trainer(model, TrainingArguments(**{**arguments, **changes}), train_dataset=texts(), callbacks=[*callbacks])


class Watch(TrainerCallback):
    """Zeros of the down projection after every step, and whether what was zero stays so."""

    def __init__(self):
        self.zeros = []
        self.last = None

    def on_step_end(self, args, state, control, model=None, **given):
        zero = model.model.layers[1].mlp.down_proj.weight == 0
        assert self.last is None or bool(zero[self.last].all())
        self.zeros.append(int(zero.sum()))
        self.last = zero


def test_the_ramp():
    ramp = CubicRamp(0.8)
    assert [ramp.at(c) for c in (0, 0.25, 0.75, 1)] == [0, 0, 0.8, 0.8]
    assert ramp.at(0.5) == pytest.approx(0.8 * 7 / 8)
    fine = [ramp.at(c) for c in np.linspace(0, 1, 10_001)]
    assert np.all(np.diff(fine) >= 0)
    assert ramp.mean == pytest.approx(np.trapezoid(fine, dx=1e-4), abs=1e-6)


@pytest.mark.parametrize(
    "sparsity, start, end", [(80, 0.25, 0.75), (0, 0.25, 0.75), (0.8, 0.75, 0.25), (0.8, 0.5, 1.5)]
)
def test_a_ramp_that_is_none(sparsity, start, end):
    with pytest.raises(InputError, match=r"sparsity|start"):
        CubicRamp(sparsity, start, end)


def test_which_weights():
    names = prunable(llama())
    assert len(names) == 3 * len(BLOCK)
    assert {name.split(".")[-2] for name in names} == BLOCK
    assert not any("down" in name for name in prunable(llama(), ["*.down_proj.*"]))
    with pytest.raises(InputError, match="matches none"):
        prunable(llama(), ["*.fc.*"])
    with pytest.raises(InputError, match="nothing is left"):
        prunable(llama(), ["*"])
    with pytest.raises(ModelError, match="no repeated blocks"):
        prunable(nn.Linear(2, 2))
    adapted = llama()
    adapted.peft_config = {}
    with pytest.raises(ModelError, match="adapters"):
        prunable(adapted)


@pytest.mark.slow
def test_experts_lose_the_same_share_and_gates_none(tmp_path):
    set_seed(0)
    found = zoo.ARCHITECTURES["qwen2_moe"]
    model = found.cls(found.configuration())
    assert not any("gate.weight" in name for name in prunable(model))
    trainer(model, tmp_path, GradualPruning(0.5, every=5)).train()
    for layer in model.model.layers:
        for experts in (layer.mlp.experts.gate_up_proj, layer.mlp.experts.down_proj):
            zeros = (experts == 0).flatten(1).sum(1)
            assert zeros.tolist() == [experts[0].numel() // 2] * len(experts)
        assert bool((layer.mlp.gate.weight != 0).all())


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_ends_at_exactly_the_sparsity(accumulate, tmp_path):
    model, watch = llama(), Watch()
    gradual = GradualPruning(0.8, every=2)
    before = model.model.embed_tokens.weight.detach().clone()
    trainer(model, tmp_path, gradual, watch, gradient_accumulation_steps=accumulate).train()
    for name, weight in prunable(model).items():
        assert int((weight == 0).sum()) == round(0.8 * weight.numel()), name
    assert not torch.equal(before, model.model.embed_tokens.weight)
    assert int((model.model.embed_tokens.weight == 0).sum()) == 0
    size = 32 * 48
    asked = [CubicRamp(0.8).at((step if step >= 15 else step - step % 2) / STEPS) for step in range(1, STEPS + 1)]
    assert watch.zeros == [round(share * size) for share in asked]


def test_ties_are_broken(tmp_path):
    model = llama()
    with torch.no_grad():
        for weight in prunable(model).values():
            weight.fill_(0.5)
    trainer(model, tmp_path, GradualPruning(0.5, every=1), learning_rate=0.0).train()
    for weight in prunable(model).values():
        assert int((weight == 0).sum()) == weight.numel() // 2


@pytest.mark.slow
@pytest.mark.parametrize("stop", [6, 7, 17])
def test_resuming_gives_the_same_masks(stop, tmp_path):
    straight = llama()
    keep = {"save_strategy": "steps", "save_steps": stop}
    trainer(straight, tmp_path / "run", GradualPruning(0.7, every=3), **keep).train()
    resumed = llama()
    again = trainer(resumed, tmp_path / "again", GradualPruning(0.7, every=3))
    again.train(resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{stop}"))
    ours = prunable(resumed)
    for name, weight in prunable(straight).items():
        assert torch.equal(weight == 0, ours[name] == 0), name
        assert torch.equal(weight, ours[name]), name
    saved = LlamaForCausalLM.from_pretrained(tmp_path / "run" / f"checkpoint-{stop}")
    share = GradualPruning(0.7, every=3).share(stop, STEPS)
    for weight in prunable(saved).values():
        assert int((weight == 0).sum()) == round(share * weight.numel())


def test_a_run_that_stops_early_says_so(tmp_path, capsys):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **given):
            control.should_training_stop = state.global_step == 10

    trainer(llama(), tmp_path, GradualPruning(0.8, every=1), Stop()).train()
    assert "stopped at step 10 of 20: 70.0% of the weights are pruned, not 80.0%" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "every", "words"),
    [
        ({}, 11, "the ramp lasts 10 steps"),
        ({"load_best_model_at_end": True}, 2, "load_best_model_at_end"),
        ({"fsdp": True}, 2, "fsdp"),
        ({"deepspeed": "zero3.json"}, 2, "deepspeed"),
    ],
)
def test_what_cannot_work_is_refused_when_training_begins(changes, every, words, tmp_path):
    made = trainer(llama(), tmp_path, GradualPruning(0.8, every=every))
    for name, value in changes.items():  # set late: nothing is sharded or loaded before the callback refuses
        setattr(made.args, name, value)
    with pytest.raises(InputError, match=words):
        made.train()


@pytest.mark.parametrize("law", [BESIROGLU, HOFFMANN])
def test_the_law(law):
    run = SparseRun(1e9, 20e9, CubicRamp(0.8), prunable=0.9)
    shares = np.array([CubicRamp(0.8).at(c) for c in np.linspace(0, 1, 100_001)])
    average = np.trapezoid(1e9 * (1 - 0.9 * shares), dx=1e-5)
    found = run.forecast(law)
    assert found["sparse"]["average_parameters"] == pytest.approx(average, rel=1e-6)
    for name, size in (("dense", 1e9), ("sparse", average), ("small", 1e9 * (1 - 0.72))):
        by_hand = law.E + law.A * np.exp(-law.alpha * np.log(size)) + law.B * np.exp(-law.beta * np.log(20e9))
        assert found[name]["loss"] == pytest.approx(by_hand, rel=1e-6)
    assert found["compute_saved"] == pytest.approx(0.9 * 0.8 * 0.625)
    assert found["dense"]["loss"] < found["sparse"]["loss"] < found["small"]["loss"]


def test_chinchilla_beats_gopher():
    """Hoffmann's law foresees 1.937 for Chinchilla (70 B, 1.4 T tokens), less than for Gopher (280 B, 300 G): 1.993."""
    assert HOFFMANN.loss(70e9, 1.4e12) == pytest.approx(1.937, abs=2e-3)
    assert HOFFMANN.loss(280e9, 300e9) == pytest.approx(1.993, abs=2e-3)


def test_the_command(capsys):
    asked = ["plan", "--schedule", "--parameters", "1B", "--tokens", "20B", "--sparsity", "80%", "--steps", "1000"]
    assert cli.call([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sparse"]["average_parameters"] == pytest.approx(5e8)
    assert found["sparse"]["loss"] == pytest.approx(1.8172 + 482.01 / 5e8**0.3478 + 2085.43 / 20e9**0.3658)
    assert [row["step"] for row in found["schedule"]] == [0, 250, 375, 500, 625, 750, 1000]
    assert cli.call(asked) == 0
    shown = capsys.readouterr().out
    assert "2.6274" in shown
    assert "500 M" in shown
    assert cli.call([*asked, "--end", ".5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["compute_saved"] == pytest.approx(0.8 * (0.75 * 0.25 + 0.5))
    assert cli.call([*asked, "--law.e", "1.69", "--law.a", "406.4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["law"]["A"] == 406.4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"--sparsity": "80"}, "80% or 0.8"),
        ({"--parameters": "one"}, "350M"),
        ({"--start": "80%"}, "starts before it ends"),
        ({"--prunable": "120%"}, "prunable 1.2"),
        ({"--law.a": "0"}, "above 0"),
        ({"--steps": "0"}, "at least 1"),
    ],
)
def test_mistakes_of_the_command(changes, words, capsys):
    asked = {"--parameters": "1B", "--tokens": "20B", "--sparsity": "80%"} | changes
    assert cli.call(["plan", "--schedule", *(part for pair in asked.items() for part in pair)]) == 2
    assert words in capsys.readouterr().err
