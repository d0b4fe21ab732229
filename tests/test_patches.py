"""Towers that take images cut into patches, and models that hear and write: how they are given what they read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as tf
from torch import Tensor, nn

from compress.data.reread import IGNORED
from compress.data.sources.speech import SENTENCES
from compress.errors import InputError
from compress.graph.trace import trace
from compress.inputs.audio import MASKS
from compress.inputs.audio_text import AudioText, Spectra
from compress.inputs.batch import LABELS, given, rows, samples
from compress.inputs.choose import inputs_of
from compress.inputs.patches import Patched
from compress.inputs.patching import POSITIONS, SHAPES, Patches, Rows, Strips, Tokens
from compress.model.build import empty_model
from compress.output_format.by_layer import by_layer
from compress.recipe.part import Part
from compress.recipe.schema import Calibrate
from compress.tasks.choose import task_of

SIZE = (3, 8, 12)
TOWER: Any = {"hidden_size": 16, "num_heads": 4, "depth": 2, "intermediate_size": 40, "patch_size": 4}
TEXT: Any = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
TEXT |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}
HEARS: Any = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
TOWERS: dict[str, tuple[type, Any]] = {
    "grid": (tf.Qwen2_5_VisionTransformerPretrainedModel, "Qwen2_5_VLVisionConfig"),
    "rows": (tf.Siglip2VisionModel, "Siglip2VisionConfig"),
}


def image() -> Tensor:
    return torch.arange(2.0 * 3 * 8 * 12).reshape(2, *SIZE)


def test_patches_lie_end_to_end_side_by_side_or_in_rows():
    flat = given(Patches(SIZE, 4, 1, 1).lay(image()))
    assert flat["pixel_values"].shape == (2 * 6, 3 * 16)
    assert flat["image_grid_thw"].tolist() == [[1, 2, 3]] * 2
    assert torch.equal(flat["pixel_values"][7], image()[1, :, :4, 4:8].flatten())
    square = given(Patches(SIZE, 4, 1, 1, square=True, grid="grid_thw").lay(image()))
    assert torch.equal(square["pixel_values"][7], image()[1, :, :4, 4:8])
    tokens = given(Tokens((3, 8, 8), 4).lay(image()[..., :8]))
    assert torch.equal(tokens["pixel_values"][5], image()[1, :, :4, 4:8].permute(1, 2, 0))
    assert tokens["image_grid_thw"].tolist() == [[1, 2, 2]] * 2
    strips = given(Strips(SIZE, 4).lay(image()))
    assert strips["pixel_values"].shape == (1, 3, 4, 2 * 6 * 4)
    assert torch.equal(strips["pixel_values"][0, :, :, 28:32], image()[1, :, :4, 4:8])
    assert strips["target_sizes"].tolist() == [[2, 3]] * 2
    told = given(Rows(SIZE, 4, (*SHAPES, POSITIONS)).lay(image()))
    assert torch.equal(told["pixel_values"][1, 1], image()[1, :, :4, 4:8].permute(1, 2, 0).flatten())
    assert told[POSITIONS][0].tolist() == [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1]]
    assert told["spatial_shapes"].tolist() == [[2, 3]] * 2 and told["pixel_attention_mask"].all()


def test_one_sample_of_a_batch_is_what_the_forward_takes_of_one():
    batch = Strips(SIZE, 4).lay(image())
    assert rows(batch) == 2
    alone = given(samples(batch)[1])
    assert torch.equal(alone["pixel_values"], given(batch)["pixel_values"][..., 24:])


@pytest.mark.parametrize("name", TOWERS)
def test_towers_that_take_patches_are_traced_whole(name):
    cls, config = TOWERS[name]
    values = TOWER if name == "grid" else {**HEARS, "patch_size": 4, "num_patches": 16}
    model = empty_model(getattr(tf, config)(**values), cls)
    inputs = inputs_of(model)
    assert isinstance(inputs, Patched)
    found = trace(model, inputs.example())
    assert not found.untraced
    free = [family.kind for family in found.families.values() if family.pinned is None]
    assert free.count("heads") >= 2 and free.count("channels") >= 2


def hears() -> nn.Module:
    tower: Any = {**HEARS, "num_mel_bins": 20, "max_source_positions": 8}
    config = tf.AudioFlamingo3Config(audio_config=tower, text_config={**TEXT, "model_type": "qwen2"}, audio_token_id=95)
    return empty_model(config, tf.AudioFlamingo3ForConditionalGeneration)


def test_what_a_model_hears_stands_in_its_text():
    model = hears()
    inputs = inputs_of(model)
    assert isinstance(inputs, AudioText)
    placed = inputs.placed()
    assert placed is not None and placed.stand == 4  # two convolutions and a pooling halve sixteen frames twice
    assert ((inputs.check()["input_ids"] == 95).sum(1) == 4).all()
    found = trace(model, inputs.example())
    assert not any("audio_tower" in module for module in found.untraced.values())
    free = [name for name, family in found.families.items() if family.pinned is None]
    assert sum("audio_tower" in name and name.endswith("heads") for name in free) == 2


def test_what_is_said_is_heard_and_pictures_are_cut_up_to_calibrate_on(tmp_path):
    checkpoint: Any = SimpleNamespace(folder=tmp_path, trust_remote_code=False)
    hearing = inputs_of(hears())
    assert isinstance(hearing, AudioText) and task_of(hearing.model).name == "next_token"
    layout = Spectra((20, 16), 1, MASKS[0])
    heard, texts = hearing._heard(Part("speech"), 3, checkpoint, layout, seed=1)
    assert heard.shape == (3, 20, 16) and heard.std() > 0
    assert texts == [f"Transcribe the speech: {text}" for text in SENTENCES[1:4]]
    (batch,), _ = hearing.batches(Calibrate(data=Part("random"), samples=2, batch=2, length=12), checkpoint)
    assert ((batch["input_ids"] == 95) == (batch[LABELS] == IGNORED)).all() and batch["input_ids"].shape == (2, 16)
    seeing = inputs_of(
        empty_model(tf.Siglip2VisionConfig(**HEARS, patch_size=4, num_patches=16), tf.Siglip2VisionModel)
    )
    (batch,), _ = seeing.batches(Calibrate(samples=2, batch=2), checkpoint)
    pixels = batch["pixel_values"]
    assert pixels.shape == (2, 16 * 16, 3 * 16) and not torch.equal(pixels[0], pixels[1])
    with pytest.raises(InputError, match="the model hears too"):
        hearing.batches(Calibrate(samples=2, template="chat"), checkpoint)


def test_a_list_as_long_as_the_layers_by_chance_is_left_alone():
    config = tf.InternVLVisionConfig(**{**HEARS, "image_size": [8, 8], "patch_size": [4, 4]})
    config.of_layers = [5, 6]
    edits = by_layer(config, tf.InternVLVisionModel, {"num_hidden_layers": 1}, 2, [1])
    assert edits == {"of_layers": [6]}
