"""The kind of inputs and the task of docs/extending.md, a signal of one dimension, with a model of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from page import learn
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from compress.checkpoint.open import open_checkpoint
from compress.errors import ModelError
from compress.inputs.batch import LABELS, Batch
from compress.inputs.choose import inputs_of
from compress.inputs.text import Text
from compress.model.model import Model
from compress.model.modeling_compress import CompressedConfig
from compress.output_format.generic import auto_class
from compress.pipeline import Options, run
from compress.recipe.read import parse_recipe
from compress.recipe.schema import Calibrate
from compress.registry import inputs

WINDOW = 8


class SignalConfig(PretrainedConfig):
    model_type = "signal"
    hidden_size: int = 24
    intermediate_size: int = 40
    num_hidden_layers: int = 2
    window: int = WINDOW


class Block(nn.Module):
    def __init__(self, config: SignalConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden_size)
        self.up = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, frames: Tensor) -> Tensor:
        return frames + self.down(torch.tanh(self.up(self.norm(frames))))


class SignalModel(PreTrainedModel):
    """Denoises `signal` `[rows, length]`, a window at a time."""

    config_class = SignalConfig
    main_input_name = "signal"

    def __init__(self, config: SignalConfig) -> None:
        super().__init__(config)
        self.inside = nn.Linear(config.window, config.hidden_size)
        self.layers = nn.ModuleList([Block(config) for _ in range(config.num_hidden_layers)])
        self.outside = nn.Linear(config.hidden_size, config.window)
        self.post_init()

    def forward(self, signal: Tensor, return_dict: bool = True) -> BaseModelOutput:
        frames = self.inside(signal.unflatten(1, (-1, self.config.window)))
        for layer in self.layers:
            frames = layer(frames)
        return BaseModelOutput(last_hidden_state=self.outside(frames))  # pyright: ignore


def waves(rows: int, length: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    speed, start = torch.rand(2, rows, 1, generator=generator)
    return torch.sin(torch.arange(length) * (0.1 + speed) + 6 * start)


@pytest.fixture(autouse=True)
def registered(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path_factory.mktemp("cache")))
    signal, _ = (learn(title, monkeypatch) for title in ("A kind of inputs", "A task"))
    AutoConfig.register("signal", SignalConfig, exist_ok=True)
    AutoModel.register(SignalConfig, SignalModel, exist_ok=True)
    return signal.Signal


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    SignalModel(SignalConfig()).save_pretrained(tmp_path / "in")
    return tmp_path / "in"


def test_others_kinds_are_asked_first(registered):
    class Greedy(registered):
        @classmethod
        def fits(cls, model, config):
            return True

    text = nn.Module()
    assert isinstance(inputs_of(text, SignalConfig()), Text)
    inputs.add("zzz")(Greedy)
    assert isinstance(inputs_of(text, SignalConfig()), Greedy)


def test_a_signal_model_is_traced(registered, folder):
    source = Model.of(open_checkpoint(folder))
    assert isinstance(source.inputs, registered)
    free = {name: family.size for name, family in source.graph.families.items() if family.pinned is None}
    assert free == {"layers.0.channels": 40, "layers.1.channels": 40, "hidden": 24, "layers.layers": 2}
    assert source.graph.flops() == 2 * 4 * (8 * 24 + 2 * 2 * 24 * 40 + 24 * 8)


def test_a_signal_model_is_calibrated_pruned_and_verified(folder, tmp_path):
    recipe = parse_recipe(
        "calibrate: {samples: 8, length: 4}\nsteps:\n- {prune: channels, by: fluctuation, remove: 25%, repair: bias}\n"
    )
    report: Any = run(recipe, folder, tmp_path / "out", Options(evaluate=False))
    assert any("equal to the masked dense model's" in note for note in report["notes"])
    assert json.loads((tmp_path / "out" / "config.json").read_text())["intermediate_size"] == 30
    assert report["opens_with"] == f"transformers, once {__name__} is imported, as SignalModel"
    assert report["load"].startswith(f"{__name__}.SignalModel.from_pretrained(")
    small = AutoModel.from_pretrained(tmp_path / "out")
    assert small.layers[1].down.weight.shape == (24, 30)
    dense, signal = AutoModel.from_pretrained(folder), waves(4, 32, 9)
    with torch.no_grad():
        one, other = (model.eval()(signal).last_hidden_state for model in (dense, small))
    assert 0 < (one - other).norm() / one.norm() < 0.5


def error(folder: Path, batches: list[Batch]) -> float:
    """The mean squared error of the saved model, by hand."""
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        made = [model(batch["signal"]).last_hidden_state.flatten(1) for batch in batches]
    return float((torch.cat(made) - torch.cat([batch[LABELS] for batch in batches])).square().mean())


@pytest.mark.slow
def test_gradients_of_its_loss_choose_its_metric_measures_and_its_graph_is_exported(folder, tmp_path):
    recipe = parse_recipe(
        "calibrate: {samples: 8, length: 4}\nsteps:\n- {prune: channels, by: taylor, remove: 50%}\nexport: {onnx: {}}\n"
    )
    report: Any = run(recipe, folder, tmp_path / "out", Options(evaluate="full", latency=False))
    (figure,) = json.loads((tmp_path / "out" / "report.json").read_text())["quality"]["figures"]
    source = Model.of(open_checkpoint(folder))
    batches, _ = source.inputs.batches(Calibrate(samples=64, length=256, batch=4), source.checkpoint)
    assert figure["name"] == "denoising_error" and not figure["higher_is_better"]
    assert figure["dense"] == pytest.approx(error(folder, batches), rel=1e-4)
    assert figure["value"] == pytest.approx(error(tmp_path / "out", batches), rel=1e-4)
    assert report["exports"]["onnx"]["result"]["inputs"]["signal"]
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "out" / "onnx" / "model.onnx")
    signal = waves(5, 4 * WINDOW, 3)
    (made,) = session.run(None, {"signal": signal.numpy()})
    with torch.no_grad():
        expected = AutoModel.from_pretrained(tmp_path / "out").eval()(signal).last_hidden_state
    torch.testing.assert_close(torch.from_numpy(made), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_blocks_of_different_widths_are_written_opened_and_exported(folder, tmp_path):
    recipe = parse_recipe(
        "calibrate: {samples: 8, length: 4}\nexport: {onnx: {}}\n"
        "steps:\n- {prune: channels, by: taylor, remove: 25%, widths: per-layer, allocate: global}\n"
    )
    small = load_file(folder / "model.safetensors")
    small["layers.0.up.weight"] *= 0.01  # so that the first block loses most
    save_file(small, folder / "model.safetensors", {"format": "pt"})
    report: Any = run(recipe, folder, tmp_path / "out", Options(evaluate="full", latency=False))
    assert report["opens_with"].endswith(f", once {__name__} is imported")
    model: Any = AutoModel.from_pretrained(tmp_path / "out", trust_remote_code=True).eval()
    first, second = (len(layer.up.weight) for layer in model.layers)
    assert first + second == 60 and first < second
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "out" / "onnx" / "model.onnx")
    signal = waves(5, 4 * WINDOW, 3)
    with torch.no_grad():
        expected = model(signal).last_hidden_state
    (made,) = session.run(None, {"signal": signal.numpy()})
    torch.testing.assert_close(torch.from_numpy(made), expected, rtol=1e-4, atol=1e-5)


def test_a_class_that_no_auto_class_leads_to_is_told_how_to_be_registered():
    class Unregistered(SignalModel):
        pass

    with pytest.raises(ModelError, match=r"AutoModel\.register\(SignalConfig, Unregistered\)"):
        auto_class(SignalConfig(), Unregistered)


def test_a_result_is_not_opened_before_its_package_is_imported():
    with pytest.raises(ValueError, match="import the package that registers sonar models"):
        CompressedConfig.from_dict({"compressed": {"model_type": "sonar"}})
