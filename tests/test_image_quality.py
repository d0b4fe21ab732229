"""Quality of models of images: similarity of embeddings on photos, in a run, a comparison, `compress eval` and ONNX."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification, ViTModel

from compress import cli
from compress.checkpoint.open import open_checkpoint
from compress.evaluate import before_after
from compress.evaluate.load import held_out
from compress.model.model import Model
from compress.pipeline import Options, run
from compress.recipe.part import Part
from compress.recipe.read import parse_recipe

RECIPE = "calibrate: {data: photos, samples: 6, batch: 4}\nsteps:\n- {prune: channels, by: wanda, remove: 50%}\n"
CONFIG = ViTConfig(
    hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8
)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    ViTModel(CONFIG).save_pretrained(tmp_path / "in")
    (tmp_path / "half.yaml").write_text(RECIPE)
    return tmp_path


def embeddings(folder, rows):
    model = ViTModel.from_pretrained(folder).eval()
    with torch.no_grad():
        return torch.cat([model(**batch).last_hidden_state.mean(1) for batch in rows])


def test_a_run_says_how_like_the_dense_models_embeddings_of_photos_are(place):
    report = run(parse_recipe(RECIPE), place / "in", place / "out")
    source = Model.of(open_checkpoint(place / "in"))
    rows = held_out(source.inputs, source.checkpoint, data=Part("photos", {"split": "test"}), length=256, samples=64)
    found = report["after"]["similarity"]
    one, two = (embeddings(place / name, rows)[: found["samples"]] for name in ("in", "out"))
    assert found["cosine"] == pytest.approx(torch.cosine_similarity(one, two).mean().item(), rel=1e-4)
    assert 0 < found["cosine"] < 1 and found["samples"] > 3
    assert report["text"] == "photos, split test"
    assert report["quality"]["hub_task"] == "feature-extraction"
    assert report["changes"]["cosine"]["value"] == pytest.approx(found["cosine"], rel=1e-4)
    assert (report["before"]["latency"]["length"], report["before"]["latency"]["noun"]) == (16, "patches")
    assert "flops_length" not in report["before"]
    page = (place / "out" / "report.html").read_text()
    assert "FLOPs of a sample" in page and "Latency, 1 × 16 patches" in page
    assert "Embedding cosine to the dense model" in (place / "out" / "README.md").read_text()


@pytest.mark.slow
def test_recipes_for_images_are_compared(place, capsys):
    given = ["--sweep", "steps.0.remove=25%,75%", "--no-latency"]
    assert cli.call(["compare", "half.yaml", "in", "-o", "compared", *given]) == 0
    found = json.loads((place / "compared" / "compare.json").read_text())
    assert [row["quality"]["name"].partition(" of")[0] for row in found["rows"]] == ["Rank correlation"] * 2
    assert [one["name"] for one in found["ranking"]] == ["half-remove=25%", "half-remove=75%"]
    assert found["dense"]["quality"]["value"] == 1 and set(found["front"]) == {"params", "flops"}
    assert "FLOPs of a sample" in capsys.readouterr().out


def test_models_of_images_too_large_for_memory_give_the_same_figures(place, monkeypatch):
    torch.manual_seed(1)
    ViTModel(CONFIG).save_pretrained(place / "other")
    source = Model.of(open_checkpoint(place / "in"))
    whole = before_after.Evaluator(source, timed=False)(place / "other")
    monkeypatch.setattr(before_after, "LARGEST", 1)
    monkeypatch.setattr("compress.evaluate.whole.load_model", None)
    streamed = before_after.Evaluator(source, timed=False)(place / "other")
    assert whole.quality is not None and streamed.quality is not None
    for one, two in zip(whole.quality.figures, streamed.quality.figures, strict=True):
        assert two.value == pytest.approx(one.value, rel=1e-4) and one.value < 0.99


def test_eval_measures_an_encoder_of_images_beside_the_dense_one(place, capsys):
    torch.manual_seed(1)
    ViTModel(CONFIG).save_pretrained(place / "other")
    assert cli.call(["eval", "other", "--against", "in", "--latency", "--samples", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["similarity"]["samples"] == 4 and found["text"] == "photos, split test"
    assert found["speed"]["prefill"]["length"] == 16 and found["speed"]["decode"] is None
    assert set(found["changes"]) == {"cosine", "ranks", "prefill", "throughput"}
    ViTForImageClassification(CONFIG).save_pretrained(place / "classes")
    assert cli.call(["eval", "classes"]) == 2
    assert "--data: a classifier of images is measured on digits, or a folder" in capsys.readouterr().err


@pytest.mark.slow
def test_an_encoder_of_images_is_the_same_in_onnx_runtime(place):
    onnxruntime = pytest.importorskip("onnxruntime")
    report = run(parse_recipe(f"{RECIPE}export: onnx"), place / "in", place / "out", Options(evaluate="full"))
    made = report["exports"]["onnx"]
    assert made["speed"]["after"]["prefill"]["length"] == made["result"]["parity"][0]["length"] == 16
    pixels = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        wanted = ViTModel.from_pretrained(place / "out").eval()(pixel_values=pixels).last_hidden_state.numpy()
    session = onnxruntime.InferenceSession(place / "out" / "onnx" / "model.onnx")
    (given,) = session.get_inputs()
    assert (given.name, given.shape) == ("pixel_values", ["batch", 3, 32, 32])
    found = session.run(["last_hidden_state"], {"pixel_values": pixels.numpy()})[0]
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()
