"""What compress.prune made of a module, in a folder: built again by the caller's function, and by nothing else."""

from __future__ import annotations

import json
import sys
import types

import nets
import pytest
import torch
from nets import recipe

import compress
from compress.errors import InputError, ModelError

CHANNELS = recipe("{prune: channels, by: magnitude, remove: 30%}")
IDS = torch.arange(14).view(2, 7)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A result, saved, with what it computes."""
    folder = tmp_path_factory.mktemp("saved") / "out"
    steps = "{prune: [heads, channels], by: magnitude, remove: 40%}", "{prune: layers, by: random, remove: 40%}"
    found = compress.prune(nets.Decoder(layers=3), IDS, recipe(*steps))
    with torch.no_grad():
        found.module.norm.weight.mul_(2)
    found.save(folder, build="nets:Decoder", arguments={"layers": 3})
    return folder, found.module.eval()(IDS)


def test_what_was_saved_is_built_by_the_caller(saved):
    folder, wanted = saved
    assert sorted(path.suffix for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pkl", ".py")) == []
    assert torch.equal(compress.load(folder, build=lambda: nets.Decoder(layers=3), arguments={})(IDS), wanted)
    assert torch.equal(compress.load(folder, build="nets:Decoder")(IDS), wanted)
    again = compress.load(folder, build=nets.Decoder)
    assert again.head.weight is again.tokens.weight and not again.training
    more = compress.prune(again, IDS, CHANNELS)
    assert more.plan.before["params"] == sum(p.numel() for p in again.parameters())
    assert json.loads((folder / "report.json").read_text())["load"] == f"compress.load({str(folder)!r}, build=…)"


def test_code_that_a_folder_names_is_imported_with_trust_only(saved, monkeypatch):
    folder, wanted = saved
    imported = []
    monkeypatch.setattr("compress.model.builders.importlib.import_module", lambda name: imported.append(name) or nets)
    with pytest.raises(
        InputError, match=r"holds a pruned Decoder, whose code is yours \(.*'nets:Decoder'\); pass `build=`"
    ):
        compress.load(folder)
    assert imported == []
    assert torch.equal(compress.load(folder, trust_remote_code=True)(IDS), wanted) and imported == ["nets"]


@pytest.mark.parametrize(
    ("build", "arguments", "words"),
    [
        ("nets:Nothing", None, "nets has no Nothing"),
        ("nowhere.at_all:net", None, "there is no module nowhere"),
        ("nets", None, "write 'package.module:function'"),
        ("nets:Decoder", {"depth": 3}, "failed: TypeError"),
        ("timm:resnet18", None, r"timm is not installed; pip install compress-models\[timm\]"),
        ("nets:Mlp", {}, "`build` made a Mlp"),
        ("nets:Decoder", {"layers": 2}, "not the module that was pruned"),
        (dict, {}, "returns a dict"),
    ],
)
def test_a_wrong_builder_is_said(saved, build, arguments, words, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises((InputError, ModelError), match=words):
        compress.load(saved[0], build=build, arguments=arguments)


def test_libraries_build_by_name(tmp_path, monkeypatch):
    timm, torchvision, models = (types.ModuleType(name) for name in ("timm", "torchvision", "torchvision.models"))
    timm.is_model, timm.create_model = lambda name: name == "mlp", lambda name, **given: nets.Mlp(**given)
    models.list_models, models.get_model = lambda: ["mlp"], lambda name, weights, **given: detector(**given)

    def detector(wide=24, weights_backbone="fetched"):
        assert weights_backbone is None
        return nets.Mlp(wide)

    models.get_model_builder = lambda name: detector
    for module in (timm, torchvision, models):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    x = torch.randn(2, 8)
    found = compress.prune(nets.Mlp(wide=30), x, CHANNELS)
    found.save(tmp_path / "out", build="timm:mlp", arguments={"wide": 30})
    for library in ("timm", "torchvision"):
        assert torch.equal(compress.load(tmp_path / "out", build=f"{library}:mlp")(x), found.module.eval()(x))
        with pytest.raises(InputError, match=f"{library} has no model 'resnet'"):
            compress.load(tmp_path / "out", build=f"{library}:resnet")


def test_another_function_of_the_same_shapes_is_told_apart(tmp_path):
    class Mlp(nets.Mlp):
        def forward(self, x):
            return self.third(self.second(self.first(x).tanh()).relu())

    found = compress.prune(nets.Mlp(), torch.randn(2, 8), CHANNELS)
    found.save(tmp_path / "out")
    with pytest.raises(ModelError, match="has the weights' shapes and computes something else"):
        compress.load(tmp_path / "out", build=Mlp)
    with pytest.raises(InputError, match=r"has no module\.json, .* leave `build` out"):
        compress.load(tmp_path, build=Mlp)
    held = json.loads((tmp_path / "out" / "module.json").read_text())
    (tmp_path / "out" / "module.json").write_text(json.dumps({**held, "version": 9}))
    with pytest.raises(InputError, match=r"module\.json: of version 9"):
        compress.load(tmp_path / "out", build=nets.Mlp)
