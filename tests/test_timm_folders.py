"""A folder as timm's hub format has it, pruned by the command; a stand-in plays timm."""

from __future__ import annotations

import json
import sys
import types

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import compress
from compress.errors import InputError, ModelError
from compress.files.kinds import kind_of

SEEN = {"input_size": [3, 16, 16], "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
RECIPE = "steps:\n- {prune: channels, by: magnitude, remove: 50%}\n"


def small(num_classes=1000, width=12):
    return nn.Sequential(
        nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, 8, 3), nn.Flatten(), nn.Linear(1152, num_classes)
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    timm = types.ModuleType("timm")
    timm.is_model, timm.create_model = lambda name: name == "small", lambda name, **given: small(**given)
    monkeypatch.setitem(sys.modules, "timm", timm)
    torch.manual_seed(0)
    made = tmp_path / "in"
    made.mkdir()
    save_file(small(10, 20).state_dict(), made / "model.safetensors")
    config = {"architecture": "small", "num_classes": 10, "model_args": {"width": 20}, "pretrained_cfg": SEEN}
    (made / "config.json").write_text(json.dumps(config))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return made


def test_a_folder_is_pruned_planned_and_opened(folder, tmp_path):
    out = tmp_path / "out"
    report = compress.run(tmp_path / "recipe.yaml", folder, out)
    assert report["load"] == f'compress.load("{out}", build="timm:small")'
    made = compress.load(out, build="timm:small")
    first, second, head = made[0].weight.shape, made[2].weight.shape, made[4].weight.shape
    assert first[0] == second[1] < 20 and head == (10, 144 * second[0]) and first[0] + second[0] < 28
    assert json.loads((out / "config.json").read_text()) == json.loads((folder / "config.json").read_text())
    plan = compress.plan(tmp_path / "recipe.yaml", folder)
    assert plan.steps[0].decision["kept"] == json.loads((out / "plan.json").read_text())["steps"][0]["decision"]["kept"]
    compress.apply(out / "plan.json", folder, tmp_path / "again")
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(compress.load(tmp_path / "again", build="timm:small")(x), made(x))
    assert {family.count for family in compress.inspect(folder).families if family.kind == "channels"} == {20, 8}
    with pytest.raises(InputError, match="was pruned already"):
        compress.inspect(out)


def test_recipes_that_read_data_see_images_as_the_config_says(folder, tmp_path, monkeypatch):
    from compress.api import timm_folders

    seen = []
    monkeypatch.setattr(timm_folders, "image_samples", lambda *given: seen.append(given) or torch.randn(4, 3, 16, 16))
    recipe = "calibrate: {samples: 4, batch: 2}\nsteps:\n- {prune: channels, by: activation, remove: 50%}\n"
    (tmp_path / "recipe.yaml").write_text(recipe)
    compress.run(tmp_path / "recipe.yaml", folder, tmp_path / "out")
    ((data, samples, prepare, _),) = seen
    assert (data.name, samples) == ("photos", 4)
    assert (prepare.size, prepare.mean, prepare.deviation) == ((16, 16), (0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"architecture": "other"}, InputError, "timm has no model 'other'"),
        ({"num_classes": 7}, ModelError, r"4\.bias is \[10\] there and \[7\] in timm's small"),
        ({"model_args": 3}, InputError, "model_args is 3, no arguments by name"),
        ({"pretrained_cfg": {"input_size": [3, 0, 16]}}, InputError, r"input_size is \[3, 0, 16\]"),
        ({"pretrained_cfg": {**SEEN, "mean": [1]}}, InputError, r"pretrained_cfg\.mean is \[1\]; 3 numbers are needed"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(folder, changed, error, words):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changed))
    with pytest.raises(error, match=words):
        compress.inspect(folder)


def test_without_weights_or_timm(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"timm is not installed; pip install compress-models\[timm\]"):
        compress.inspect(folder)
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("text", "kind"),
    [('{"architecture": "a"}', "timm"), ('{"architecture": "a", "model_type": "b"}', None), ("{", None)],
)
def test_folders_are_told_apart_by_their_config(tmp_path, text, kind):
    (tmp_path / "config.json").write_text(text)
    assert kind_of(tmp_path) == kind and kind_of("x.onnx") == "onnx" and kind_of("owner/name") is None
