"""Image models of transformers: cut, verified, opened by stock transformers; batch norms taken anew."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from safetensors.torch import load_file
from torch import nn

import compress.model.register  # noqa: F401
from compress.checkpoint.open import open_checkpoint
from compress.errors import InputError
from compress.model.build import empty_model
from compress.model.model import Model
from compress.output_format.find import find_output_format
from compress.output_format.native import NativePlan, find_native
from compress.pipeline import Options, run
from compress.recipe.read import parse_recipe

SHAPE: dict[str, Any] = {"image_size": 32, "num_labels": 5}
STAGES: dict[str, Any] = {**SHAPE, "hidden_sizes": [16, 32], "depths": [2, 3]}
KINDS: dict[str, tuple[Any, Any]] = {
    "resnet": (tf.ResNetForImageClassification, tf.ResNetConfig(**STAGES, embedding_size=8)),
    "convnext": (tf.ConvNextForImageClassification, tf.ConvNextConfig(**STAGES, num_stages=2)),
    "regnet": (tf.RegNetForImageClassification, tf.RegNetConfig(**STAGES, embedding_size=8, groups_width=4)),
    "swin": (
        tf.SwinForImageClassification,
        tf.SwinConfig(**SHAPE, patch_size=4, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4),
    ),
}
# By what is removed: who opens the result. What no number of a configuration says goes along as a modeling file.
OUTCOMES = [
    ("resnet", "channels", "remote"),
    ("regnet", "channels", "remote"),
    ("resnet", "hidden", "remote"),
    ("resnet", "layers", "stock"),
    ("convnext", "layers", "stock"),
    ("swin", "heads", "remote"),
]


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Saves a random model of one of KINDS; no gain, bias, mean or variance is constant."""
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))

    def save(name: str) -> Any:
        cls, config = KINDS[name]
        torch.manual_seed(0)
        model = cls(config).eval()
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor += 0.1 * torch.randn_like(tensor).abs()
        model.save_pretrained(tmp_path / name)
        return tmp_path / name

    return save


def pruned(folder: Any, out: Any, steps: str, data: str = "random") -> Any:
    recipe = parse_recipe(f"calibrate: {{data: {data}, samples: 6, batch: 3}}\nsteps:\n{steps}\n")
    return run(recipe, folder, out, Options(evaluate=False))


@pytest.mark.parametrize(
    ("name", "kind", "opens"),
    [row if row[:2] == ("resnet", "layers") else pytest.param(*row, marks=pytest.mark.slow) for row in OUTCOMES],
)
def test_what_is_written_computes_what_the_masked_model_does(name, kind, opens, saved, tmp_path):
    by = "random" if kind in ("layers", "heads") else "magnitude"
    report = pruned(saved(name), tmp_path / "out", f"- {{prune: {kind}, by: {by}, remove: 30%}}")
    assert any("equal to the masked dense model's" in note for note in report["notes"])
    assert report["after"]["params"] < report["before"]["params"]
    assert report["opens_with"].startswith("stock transformers" if opens == "stock" else "transformers with trust")
    model: Any = tf.AutoModelForImageClassification.from_pretrained(tmp_path / "out").eval()
    assert sum(p.numel() for p in model.parameters()) == report["after"]["params"] - buffers(model)
    with torch.no_grad():
        assert model(torch.randn(2, 3, 32, 32)).logits.isfinite().all()


def buffers(model: nn.Module) -> int:
    """How many numbers are stored that are no parameters."""
    return sum(t.numel() for t in model.state_dict().values()) - sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ["resnet", "convnext", "swin"])
def test_widths_that_numbers_of_the_configuration_say_are_found(name):
    """Half of everything: each stage's width is an entry of a list, or follows from the first one's."""
    cls, config = KINDS[name]
    small = {"hidden_sizes": [8, 16], "embedding_size": 4, "embed_dim": 8, "num_heads": [1, 2]}
    halved = type(config)(**{**config.to_dict(), **{k: v for k, v in small.items() if hasattr(config, k)}})
    shapes = {key: tuple(value.shape) for key, value in empty_model(halved, cls).state_dict().items()}
    if name == "swin":  # the width of a head stays, which sizes of projections do not say: embed_dim decides
        with_heads = {**config.to_dict(), "embed_dim": 8}
        shapes = {k: tuple(v.shape) for k, v in empty_model(type(config)(**with_heads), cls).state_dict().items()}
    plan = find_native(config, cls, shapes)
    assert isinstance(plan, NativePlan), plan
    expected = {"resnet": {"hidden_sizes.0": (16, 8), "hidden_sizes.1": (32, 16), "embedding_size": (8, 4)},
                "convnext": {"hidden_sizes.0": (16, 8), "hidden_sizes.1": (32, 16)},
                "swin": {"embed_dim": (16, 8)}}  # fmt: skip
    assert plan.edits == expected[name]
    assert name == "swin" or plan.config["hidden_sizes"] == [8, 16]


def test_groups_that_are_left_are_written_down(saved):
    source = Model.of(open_checkpoint(saved("regnet")))
    layer = "regnet.encoder.stages.1.layers.1.layer.1"
    family = next(f for f in source.graph.of_kind("channels") if f.size == 8 and f"{layer}.convolution.weight" in
                  [m.tensor for m in f.members])  # fmt: skip
    found = find_output_format(source, {family.name: np.arange(8) < 5}, widths="per-layer")
    assert found.config["compressed"]["attributes"] == {f"{layer}.convolution": {"groups": 5}}


def test_batch_norms_are_taken_anew_as_in_training(saved, tmp_path):
    folder = saved("resnet")
    report = pruned(folder, tmp_path / "out", "- reestimate: batch_norm")
    assert any("batch norms were taken anew" in note for note in report["notes"])
    model: Any = tf.AutoModelForImageClassification.from_pretrained(folder)
    norms = {name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    seen: dict[str, list[Any]] = {name: [] for name in norms}
    for name, module in norms.items():
        module.register_forward_pre_hook(lambda module, args, own=seen[name]: own.append(args[0]))
    source = Model.of(open_checkpoint(folder))
    recipe = parse_recipe("calibrate: {data: random, samples: 6, batch: 3}\nsteps:\n- reestimate: batch_norm\n")
    batches, _ = source.inputs.batches(recipe.calibrate, source.checkpoint, recipe.seed)
    with torch.no_grad():
        for batch in batches:
            model.train()(**batch)
    before, after = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "out"))
    for name, given in seen.items():
        mean = torch.stack([x.mean((0, 2, 3)) for x in given]).mean(0)
        variance = torch.stack([x.var((0, 2, 3)) for x in given]).mean(0)
        torch.testing.assert_close(after[f"{name}.running_mean"], mean, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(after[f"{name}.running_var"], variance, rtol=1e-3, atol=1e-4)
    for name, tensor in before.items():
        assert "running" in name or torch.equal(tensor, after[name])
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert plan["steps"][0]["decision"]["norms"] == list(norms)


def test_a_model_without_batch_norms_is_refused(saved, tmp_path):
    with pytest.raises(InputError, match="ConvNextForImageClassification has no batch norms"):
        pruned(saved("convnext"), tmp_path / "out", "- reestimate: batch_norm")
