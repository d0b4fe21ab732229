"""Models of images: traced, calibrated on photos, pruned, verified, and opened by stock transformers."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers as tf
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from compress import cli
from compress.calibrate.collect import collect
from compress.checkpoint.open import open_checkpoint
from compress.data.images import Preparation, image_samples, preparation
from compress.errors import CompressError, InputError
from compress.graph.trace import trace
from compress.inputs.images import Images
from compress.model.build import empty_model
from compress.model.model import Model
from compress.output_format.probe import attention_shapes
from compress.pipeline import Options, run
from compress.recipe.part import Part
from compress.recipe.read import parse_recipe
from compress.recipe.schema import Calibrate
from compress.registry import sources

QUICK = Options(evaluate=False)
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
KINDS = {
    "vit": (tf.ViTModel, tf.ViTConfig(**SHAPE, intermediate_size=48)),
    "vit_classes": (tf.ViTForImageClassification, tf.ViTConfig(**SHAPE, intermediate_size=48, num_labels=5)),
    "dinov2": (tf.Dinov2Model, tf.Dinov2Config(**SHAPE, mlp_ratio=2)),
}
FLAT = Preparation((16, 16), (0.0,) * 3, (1.0,) * 3)


@pytest.fixture
def saved(tmp_path):
    """Saves a random model of one of KINDS, none of whose biases and gains is constant."""

    def save(name):
        cls, config = KINDS[name]
        torch.manual_seed(0)
        model = cls(config).eval()
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        model.save_pretrained(tmp_path / name)
        return tmp_path / name

    return save


def recipe(step, data="photos"):
    return parse_recipe(f"calibrate: {{data: {data}, samples: 6, batch: 4}}\nsteps:\n- {{{step}}}\n")


def pixels(rows=3):
    return torch.randn(rows, 3, 32, 32, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("name", KINDS)
def test_the_trace_finds_what_can_go_and_counts_what_torch_counts(name, saved):
    cls, _ = KINDS[name]
    source = Model.of(open_checkpoint(saved(name)))
    assert isinstance(source.inputs, Images)
    free = [f for f in source.graph.families.values() if f.pinned is None and f.kind in ("heads", "channels")]
    channels = 64 if name == "dinov2" else 48
    assert sorted((f.kind, f.size) for f in free) == [("channels", channels)] * 2 + [("heads", 4)] * 2
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        cls.from_pretrained(source.checkpoint.folder, attn_implementation="eager").eval()(pixels(1))
    assert source.graph.flops() == counter.get_total_flops()


@pytest.mark.parametrize("options", [{"stride": 2}, {"groups": 3}, {"groups": 3, "bias": False, "padding": 1}])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_convolutions_are_counted_and_their_channels_may_go(kind, options):
    class Convolved(nn.Module):
        main_input_name = "pixel_values"

        def __init__(self):
            super().__init__()
            self.convolution, self.up, self.down = kind(3, 6, 5, **options), nn.Linear(6, 12), nn.Linear(12, 7)

        def forward(self, pixel_values):
            x = self.convolution(pixel_values).flatten(2).transpose(1, 2)
            return {"logits": self.down(torch.relu(self.up(x)))}

    config, model = SimpleNamespace(image_size=(10, 14)), Convolved()
    with FlopCounterMode(display=False) as counter:
        model(torch.randn(1, 3, 10, 14))
    graph = trace(model.to("meta"), Images(model, config).example())
    assert graph.flops() == counter.get_total_flops()
    free = {family.size for family in graph.families.values() if family.pinned is None}
    assert free == ({12, 2} if "groups" in options else {12, 6})  # three groups are the colours of an image


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("prune", ["heads", "channels", "layers"])
def test_what_is_written_computes_what_the_masked_model_does(name, prune, saved, tmp_path):
    cls, _ = KINDS[name]
    folder = saved(name)
    by = "random" if prune == "layers" else "magnitude"
    report = run(recipe(f"prune: [{prune}], by: {by}, remove: 50%", "random"), folder, tmp_path / "out", QUICK)
    assert any("equal to the masked dense model's" in note for note in report["notes"])
    assert report["after"]["params"] < report["before"]["params"]
    masked = cls.from_pretrained(folder).eval()
    sizes = {family.name: family.size for family in Model.of(open_checkpoint(folder)).graph.families.values()}
    blocks = masked.vit.layers if hasattr(masked, "vit") else getattr(masked, "layers", None) or masked.encoder.layer
    for family, decided in json.loads((tmp_path / "out" / "plan.json").read_text())["steps"][0]["decision"][
        "kept"
    ].items():
        gone = np.setdiff1d(range(sizes[family]), decided)
        assert len(gone)
        for i, block in enumerate(blocks):
            if prune == "layers":
                block.forward = (lambda x, *a, **k: x) if i in gone else block.forward
            elif f".{i}." in family:
                zero(block, prune, gone)
    import compress.model.register  # noqa: F401  # DINOv2 has no number for what is left of its heads or channels

    auto = tf.AutoModelForImageClassification if name == "vit_classes" else tf.AutoModel
    with torch.no_grad():
        expected, found = masked(pixels()), auto.from_pretrained(tmp_path / "out").eval()(pixels())
    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-5)


def zero(block, prune, gone):
    """Whatever reads these heads or channels multiplies them by zero."""
    named = dict(block.named_parameters())
    ends = ("o_proj.weight",) if prune == "heads" else ("mlp.fc2.weight",)
    (weight,) = (value for name, value in named.items() if name.endswith(ends))
    width = weight.shape[1] // (4 if prune == "heads" else weight.shape[1])
    for unit in gone:
        weight.data[:, unit * width : (unit + 1) * width] = 0


def test_the_search_of_numbers_sees_heads_and_their_width():
    """Three heads of eight and four of six have the same matrices; only what attention multiplies tells them apart."""
    for shape in ({"num_attention_heads": 4, "head_dim": 6}, {"num_attention_heads": 3, "head_dim": 8}):
        config = tf.ViTConfig(**{**SHAPE, **shape})
        heads = (shape["num_attention_heads"], shape["head_dim"])
        assert attention_shapes(empty_model(config, tf.ViTModel)) == [heads] * 2


def test_a_narrower_head_is_refused_or_right(saved, tmp_path):
    folder = saved("vit")
    try:
        report = run(recipe("prune: [head_dim], by: magnitude, remove: 25%", "random"), folder, tmp_path / "out", QUICK)
    except CompressError:
        return
    assert any("equal to the masked dense model's" in note for note in report["notes"])


def test_statistics_are_those_of_the_photos(saved):
    source = Model.of(open_checkpoint(saved("vit")))
    rows, key = source.inputs.batches(Calibrate(samples=5, batch=2), source.checkpoint, 3)
    assert [len(batch["pixel_values"]) for batch in rows] == [2, 2, 1]
    name = "layers.1.mlp.fc2.weight"
    found = collect(source.checkpoint, source.graph, {"input_mean": [name]}, rows, data_key=key)["input_mean"][name]
    model, seen = tf.ViTModel.from_pretrained(source.checkpoint.folder).eval(), []
    model.get_submodule("layers.1.mlp.fc2").register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        for batch in rows:
            model(**batch)
    torch.testing.assert_close(found, torch.cat([x.flatten(0, 1) for x in seen]).mean(0), rtol=1e-4, atol=1e-6)


def test_the_same_seed_gives_the_same_crops_and_calibration_never_sees_what_is_held_out(saved):
    source = Model.of(open_checkpoint(saved("vit")))
    keys = [source.inputs.batches(Calibrate(samples=4), source.checkpoint, seed)[1] for seed in (0, 0, 1)]
    assert keys[0] == keys[1] != keys[2]
    train, test = (list(Part("photos", {"split": split}).bind(sources)()) for split in ("train", "test"))
    assert len(train) > 4 < len(test)
    assert not any(one.shape == other.shape and torch.equal(one, other) for one in train for other in test)
    assert source.inputs.held_out([None]) == Part("photos", {"split": "test"})


def test_pictures_are_prepared_as_the_model_says(tmp_path):
    Image.new("RGB", (40, 20), (255, 0, 51)).save(tmp_path / "red.png")
    said = {"image_mean": [0.5, 0.25, 0.2], "image_std": [0.5, 0.5, 0.1], "size": {"height": 8, "width": 12}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    found = image_samples(str(tmp_path), 3, preparation(tmp_path, (16, 16), 3), seed=0)
    assert found.shape == (3, 3, 8, 12)
    expected = torch.tensor([1.0, -0.5, 0.0]).view(3, 1, 1)
    torch.testing.assert_close(found, expected.expand_as(found), rtol=0, atol=1e-5)


def test_a_crop_is_a_part_of_the_picture_in_its_place(tmp_path):
    ramp = np.zeros((64, 64, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(64)[:, None] * 4, np.arange(64)[None] * 4
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    found = image_samples(str(tmp_path / "ramp.png"), 8, FLAT, seed=0)
    down, across = found[:, 0], found[:, 1]
    assert (down.diff(dim=1) > 0).all() and down.std(2).max() < 1e-5  # rows stay rows
    rising = across.diff(dim=2)
    assert ((rising > 0).flatten(1).all(1) | (rising < 0).flatten(1).all(1)).all()  # columns too, perhaps mirrored
    assert {bool(one) for one in (rising > 0).flatten(1).all(1)} == {True, False}
    assert len({float(one.min()) for one in down}) == 8  # and none is the same crop as another


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("docs", "docs gives text, and the model reads images; take photos, pictures or random"),
        ("nowhere/at/all", "no such file or folder"),
    ],
)
def test_what_is_no_image_is_refused(data, text, saved):
    source = Model.of(open_checkpoint(saved("vit")))
    named = Part(data) if "/" not in data else data
    with pytest.raises(InputError, match=text):
        source.inputs.batches(Calibrate.model_construct(data=named, samples=2, batch=2), source.checkpoint)
    with pytest.raises(InputError, match=r"calibrate\.template: chat: the model reads images"):
        source.inputs.batches(Calibrate(samples=2, template="chat"), source.checkpoint)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"image_mean": [0.5]}, "image_mean is .* the model takes 3 channels"),
        ({"image_std": [1, 0, 1]}, "image_std holds a zero"),
        ({"size": {"longest_edge": 3}}, "no size of an image"),
        ([], "no settings by name"),
    ],
)
def test_settings_that_make_no_sense_are_named(said, text, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    with pytest.raises(InputError, match=text):
        preparation(tmp_path, (16, 16), 3)


def test_photos_are_no_text(tmp_path):
    from compress.data.tokens import texts

    with pytest.raises(InputError, match="photos gives images, the model reads text"):
        texts(Part("photos"))


def test_a_broken_picture_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"a\.png: not readable as an image"):
        image_samples(str(tmp_path), 1, FLAT, seed=0)


def embedded(folder, batches):
    """Mean over a picture's patches, as `transformers` has them of the saved model."""
    model = tf.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        return torch.cat([model(**batch).last_hidden_state.mean(1) for batch in batches])


@pytest.mark.slow
def test_a_recipe_that_ships_prunes_a_vit_and_photos_show_what_that_costs(saved, tmp_path):
    folder, out = saved("vit"), tmp_path / "out"
    few = ["--set", "calibrate.samples=6", "--set", "steps.0.remove=50%", "--evaluate", "full"]
    assert cli.call(["flap-uniform-20", str(folder), str(out), *few]) == 0
    report = json.loads((out / "report.json").read_text())
    assert "samples: 6" in (out / "recipe.yaml").read_text() and "data: photos" in (out / "recipe.yaml").read_text()
    assert any("equal to the masked dense model's" in note for note in report["notes"])
    source = Model.of(open_checkpoint(folder))
    asked = Calibrate(data=source.inputs.held_out([None]), samples=64, batch=4)
    batches, _ = source.inputs.batches(asked, source.checkpoint)
    alike = torch.cosine_similarity(embedded(folder, batches), embedded(out, batches))
    (cosine,) = (one["value"] for one in report["quality"]["figures"] if "cosine" in one["name"])
    assert 0 < cosine < 1 and cosine == pytest.approx(float(alike.mean()), abs=1e-5)
