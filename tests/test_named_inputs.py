"""Inputs that are known from a forward's docstring alone."""

from __future__ import annotations

import pytest
import torch
import transformers as tf
from torch import nn

from compress.errors import InputError
from compress.inputs.choose import inputs_of
from compress.inputs.described import Said, described, sizes_of
from compress.inputs.named import Named
from compress.inputs.text import Text
from compress.recipe.schema import Calibrate


class Robot(nn.Module):
    main_input_name = "input_ids"
    config = tf.PretrainedConfig(state_dim=5, hidden_size=8, block_size=4, layers=[1, 2, 3])

    def __init__(self):
        super().__init__()
        self.read = nn.Linear(5, 8)

    def forward(self, states, context, timesteps, kind, attention_mask=None, noise=None, labels=None):
        """
        Args:
            states (`torch.Tensor` of shape `(batch_size, episode_length, state_dim)`):
                What it saw.
            context (`torch.Tensor` of shape `[batch_size, number_of_tokens, dim * len(config.layers)]`):
                What it did.
            timesteps (`torch.LongTensor` of shape `(batch_size, episode_length)`):
                When.
            kind (`torch.LongTensor` of shape `(batch_size,)`):
                Which it is.
            attention_mask (`torch.Tensor` of shape `[batch_size, number_of_tokens + config.block_size]`):
                What is there.
            noise (`torch.Tensor` of shape `(batch_size, episode_length, hidden_size)`, *optional*):
                Nothing.
            labels (`torch.Tensor` of shape `(batch_size, 1)`):
                What is right.
        """
        if kind.shape[1] != 1 or noise is not None or labels is not None:
            raise ValueError("not so")
        assert attention_mask.shape[1] == context.shape[1] + 4
        return self.read(states).sum(1) + context.mean((1, 2))[:, None] + timesteps.sum(1, keepdim=True)

    @classmethod
    def _from_config(cls, config, **options):
        return cls()


def test_a_forward_is_given_what_its_docstring_describes():
    model = Robot()
    found = inputs_of(model)
    assert isinstance(found, Named)
    batch = found.check(3, seed=1)
    shapes = {"states": (3, 16, 5), "context": (3, 16, 24), "timesteps": (3, 16), "kind": (3, 1)}
    assert {name: tuple(x.shape) for name, x in batch.items()} == {**shapes, "attention_mask": (3, 20)}
    assert batch["attention_mask"].min() == 1 and batch["timesteps"].dtype is torch.long
    assert model(**batch).shape == (3, 8)
    (calibrated, _), _ = found.batches(Calibrate(samples=4, batch=2), None)
    assert calibrated["states"].shape == (2, 16, 5)
    with pytest.raises(InputError, match=r"reads states and context .*example_inputs\.npz"):
        found.batches(Calibrate(data="docs"), None)


@pytest.mark.parametrize(
    ("sizes", "wanted"),
    [
        (("num_channels", "height", "width"), (3, 12, 20)),
        (("number_of_things",), None),
        (("num_frames", "4"), (9, 4)),
        ((), ()),
    ],
)
def test_sizes_are_read_off_the_config(sizes, wanted):
    config = tf.PretrainedConfig(num_channels=3, image_size=[12, 20])
    assert sizes_of(Said(sizes, False, False), config, 9) == wanted


def test_what_is_optional_is_said_and_what_an_encoder_made_is_as_wide_as_it():
    said = described(Robot())
    assert said["noise"].optional and not said["states"].optional
    config = tf.PretrainedConfig(hidden_size=8, encoder_hidden_size=6)
    assert sizes_of(said["noise"], config, 2, encoder=True) == (2, 6)


def test_a_model_that_compares_images_is_given_pairs():
    class Compares(nn.Module):
        main_input_name = "pixel_values"
        config = tf.PretrainedConfig(image_size=8)

        def __init__(self):
            super().__init__()
            self.read = nn.Conv2d(3, 4, 1)

        def forward(self, pixel_values):
            if pixel_values.ndim != 5 or pixel_values.shape[1] != 2:
                raise ValueError("Input must be a 5D tensor")
            return self.read(pixel_values.flatten(0, 1))

    found = inputs_of(Compares()).check(3)["pixel_values"]
    assert found.shape == (3, 2, 3, 8, 8) and torch.equal(found[:, 1, :, :, 2:], found[:, 0, :, :, :6])
    assert Compares()(found).shape == (6, 4, 8, 8)


def test_a_tower_of_text_that_inherits_the_name_of_pixels_reads_text():
    class Tower(nn.Module):
        main_input_name = "pixel_values"
        config = tf.PretrainedConfig()

        def forward(self, input_ids=None, attention_mask=None):
            return input_ids

    assert isinstance(inputs_of(Tower()), Text)


class Page(nn.Module):
    main_input_name = "input_ids"
    config = tf.PretrainedConfig(vocab_size=20, visual_feat_dim=6, hidden_size=4)

    def __init__(self, asks=True):
        super().__init__()
        self.words, self.asks = nn.Embedding(20, 4), asks

    def forward(self, input_ids, visual_feats=None, bbox=None):
        """
        Args:
            visual_feats (`torch.Tensor` of shape `(batch_size, num_visual_features, visual_feat_dim)`):
                What is seen.
        """
        if self.asks and (bbox is None or visual_feats.shape[2] != 6):
            raise ValueError("You have to specify bbox")
        return self.words(input_ids)

    @classmethod
    def _from_config(cls, config, **options):
        return cls()


def test_a_model_of_text_is_given_boxes_and_features_where_it_asks_for_them():
    found = inputs_of(Page())
    assert isinstance(found, Text)
    batch = found.check(3)
    assert batch["bbox"].shape == (3, 16, 4) and batch["visual_feats"].shape == (3, 16, 6)
    left, top, right, bottom = batch["bbox"].unbind(-1)
    assert (left < right).all() and (top < bottom).all() and batch["bbox"].min() >= 0 and batch["bbox"].max() <= 1
    assert found.odd()["bbox"].is_meta and found.odd()["bbox"].shape == (3, 11, 4)


def test_a_model_of_text_that_asks_for_nothing_is_given_tokens_alone():
    class Plain(Page):
        def __init__(self):
            super().__init__(asks=False)

    assert inputs_of(Plain()).check().keys() == {"input_ids"}


def test_patches_that_say_where_they_lie_come_with_tokens_for_a_decoder():
    class Printed(nn.Module):
        main_input_name = "flattened_patches"
        config = tf.PretrainedConfig(patch_embed_hidden_size=12, vocab_size=9, num_channels=3)

        def forward(self, flattened_patches, decoder_input_ids=None):
            return flattened_patches[..., 2:] @ torch.ones(12, 4, device="meta") + decoder_input_ids[:, :1, None]

        @classmethod
        def _from_config(cls, config, **options):
            return cls()

    batch = inputs_of(Printed()).check(3)
    found, images = batch["flattened_patches"], torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert found[0, :, :2].tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    torch.testing.assert_close(found[:, 1, 2:].view(3, 2, 2, 3), images[:, :, :2, 2:].permute(0, 2, 3, 1))
    assert batch["decoder_input_ids"].shape == (3, 16) and batch["decoder_input_ids"].min() >= 1
