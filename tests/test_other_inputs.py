"""Films, series of numbers, arrays by example, and images with classes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import several
import torch
import transformers as tf
from PIL import Image

from compress import cli
from compress.checkpoint.open import open_checkpoint
from compress.data.classes import classified, part_of
from compress.data.films import film_samples
from compress.data.images import Preparation
from compress.errors import InputError, ModelError
from compress.inputs.arrays import Arrays
from compress.inputs.batch import LABELS
from compress.inputs.choose import inputs_of
from compress.inputs.series import Series
from compress.inputs.video import Video
from compress.model.model import Model
from compress.recipe.part import Part
from compress.recipe.schema import Calibrate

FLAT = Preparation((16, 16), (0.0,) * 3, (1.0,) * 3)


def test_a_model_of_films_is_traced_whole(tmp_path):
    source = Model.of(several.save("videomae", tmp_path / "in"))
    assert isinstance(source.inputs, Video) and source.graph.untraced == {}
    (batch,), _ = source.inputs.batches(Calibrate(samples=2), source.checkpoint)
    assert batch["pixel_values"].shape == (2, 4, 3, 16, 16) and source.inputs.length(batch) == 4 * 4
    assert sum(f.kind in ("heads", "channels") and f.pinned is None for f in source.graph.families.values()) == 4
    with torch.no_grad():
        assert several.stock(source.checkpoint)(**batch).logits.shape == (2, 5)


def test_a_film_moves_over_a_picture(tmp_path):
    ramp = np.zeros((64, 64, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(64)[:, None] * 4, np.arange(64)[None] * 4
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    films = film_samples(str(tmp_path), 3, 5, FLAT, seed=0)
    assert films.shape == (3, 5, 3, 16, 16)
    places = films[:, :, :2].mean((3, 4))  # where the view is: how far down and across
    steps = places.diff(dim=1)
    assert (steps.abs().amax(1) > 0.005).any()
    torch.testing.assert_close(steps, steps.mean(1, keepdim=True).expand_as(steps), rtol=0, atol=0.03)  # a straight way


def test_a_model_of_series_is_traced_with_what_follows(tmp_path):
    source = Model.of(several.save("series", tmp_path / "in"))
    assert isinstance(source.inputs, Series) and source.graph.untraced == {} and source.task.name == "forecasting"
    (batch,), _ = source.inputs.batches(Calibrate(samples=5), source.checkpoint)
    assert batch["past_values"].shape == (5, 15) and batch["future_values"].shape == (5, 6)
    model = several.stock(source.checkpoint)
    with torch.no_grad():
        output = model(**batch)
    assert source.task.result(output).shape == (5, 6)
    distribution = model.output_distribution(output.params, loc=output.loc, scale=output.scale)
    errors = (distribution.mean - batch["future_values"]).square().mean()
    metric = source.task.metric(batch)
    assert metric.quality(metric.read(output, batch)).main.value == pytest.approx(float(errors), rel=1e-5)
    assert float(source.task.loss(output, batch)) == pytest.approx(float(output.loss))
    assert sum(f.kind == "heads" and f.pinned is None for f in source.graph.families.values()) == 2 + 2 * 2


def saved(folder, **arrays):
    """A ViT beside examples of what it is given."""
    torch.manual_seed(0)
    tf.ViTModel(tf.ViTConfig(**several.VISION)).save_pretrained(folder)
    if arrays:
        np.savez(folder / "example_inputs.npz", **arrays)
    return folder


def test_examples_beside_the_config_go_before_every_other_kind(tmp_path):
    pixels = np.random.default_rng(0).standard_normal((5, 3, 16, 16)).astype(np.float32)
    folder = saved(tmp_path / "in", pixel_values=pixels)
    source = Model.of(open_checkpoint(folder))
    assert isinstance(source.inputs, Arrays) and source.graph.untraced == {}
    (batch,), _ = source.inputs.batches(Calibrate(samples=9), source.checkpoint)
    assert torch.equal(batch["pixel_values"], torch.from_numpy(pixels))
    assert torch.equal(source.inputs.check(3, seed=4)["pixel_values"], torch.from_numpy(pixels[[4, 0, 1]]))
    asked = Calibrate(samples=9, batch=9, data=Part("random"))
    noise = source.inputs.batches(asked, source.checkpoint)[0][0]["pixel_values"]
    assert len(noise) == 9 and noise.std() == pytest.approx(1, abs=0.1)
    np.savez(tmp_path / "more.npz", pixel_values=pixels[:2] + 1)
    more = source.inputs.batches(Calibrate(data=str(tmp_path / "more.npz")), source.checkpoint)[0][0]
    assert torch.equal(more["pixel_values"], torch.from_numpy(pixels[:2] + 1))
    assert folder / "example_inputs.npz" in source.checkpoint.side_files  # it travels: the result can be pruned on


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"pixel_values": np.zeros((2, 3)), "mask": np.zeros(3)}, "has pixel_values 2, mask 3 samples"),
        ({"pixel_values": np.array([{}], object)}, "cannot be read as arrays by name"),
        ({"pixel_values": np.float32(1)}, "has pixel_values 0 samples"),
    ],
)
def test_examples_that_are_none_are_refused(arrays, words, tmp_path):
    folder = saved(tmp_path / "in")
    np.savez(folder / "example_inputs.npz", allow_pickle=True, **arrays)
    with pytest.raises(InputError, match=words):
        Model.of(open_checkpoint(folder))


def test_a_forward_that_takes_nothing_that_is_known_says_what_it_needs():
    class Deaf(torch.nn.Module):
        main_input_name = "input_values"
        config = tf.Wav2Vec2Config(**several.SPEECH)

        def forward(self, input_values, speaker):
            return input_values

        @classmethod
        def _from_config(cls, config, **options):
            return cls()

    with pytest.raises(
        ModelError, match=r"Deaf needs input_values and speaker, and ran with none .*example_inputs\.npz"
    ):
        inputs_of(Deaf()).example()


def test_a_classifier_of_images_is_calibrated_and_measured_by_classes(tmp_path, capsys):
    torch.manual_seed(0)
    config = tf.ViTConfig(**several.VISION, num_labels=10, num_channels=3)
    tf.ViTForImageClassification(config).save_pretrained(tmp_path / "in")
    source = Model.of(open_checkpoint(tmp_path / "in"))
    asked = Calibrate(samples=6, data=Part("digits"))
    (batch,), _ = source.inputs.batches(asked, source.checkpoint)
    assert batch[LABELS].shape == (6,) and batch["pixel_values"].shape == (6, 3, 16, 16)
    model = several.stock(source.checkpoint)
    with torch.no_grad():
        assert torch.isfinite(source.task.loss(model(batch["pixel_values"]), batch))
    assert cli.call(["eval", str(tmp_path / "in"), "--data", "digits", "--samples", "20", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["accuracy"]
    images, labels = classified(part_of(tmp_path.__class__("digits")), 20, FLAT_OF_VIT, config.id2label)
    with torch.no_grad():
        right = model(images).logits.argmax(-1) == labels
    assert found == {"value": pytest.approx(float(right.float().mean())), "samples": 20}


FLAT_OF_VIT = Preparation((16, 16), (0.5,) * 3, (0.5,) * 3)


def test_folders_are_classes(tmp_path):
    for name, colour in (("blue", (0, 0, 255)), ("red", (255, 0, 0))):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.new("RGB", (20, 10), colour).save(tmp_path / name / f"{number}.png")
    part = part_of(tmp_path)
    images, labels = classified(part, 4, FLAT, {0: "red", 1: "blue"})
    assert labels.tolist() == [1, 0, 1, 0] and images[1].mean((1, 2)).tolist() == pytest.approx([1, 0, 0])
    with pytest.raises(InputError, match=r"'blue' is no class of the model \(it has red, green\)"):
        classified(part, 4, FLAT, {0: "red", 1: "green"})
    with pytest.raises(InputError, match="measured on digits, or a folder"):
        part_of(None)
