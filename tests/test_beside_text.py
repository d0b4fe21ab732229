"""Text that comes with films, with masks, and with media whose places are said apart."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import transformers as tf
from torch import nn

from compress.inputs.choose import inputs_of
from compress.inputs.image_text import ImageText
from compress.inputs.video import Video
from compress.inputs.video_text import VideoText
from compress.tasks.contrastive import Contrastive

SIZES = {"vocab_size": 30, "image_size": 8, "num_channels": 3}


class Reader(nn.Module):
    main_input_name = "input_ids"
    config = tf.PretrainedConfig(**SIZES)

    @classmethod
    def _from_config(cls, config, **options):
        return cls()


class Places(Reader):
    """Overwrites three tokens by an image."""

    config = tf.PretrainedConfig(**SIZES, latent_query_num=3)

    def forward(self, input_ids, pixel_values, image_embeds_position_mask):
        if pixel_values.dim() != 4 or int(image_embeds_position_mask.sum()) != 3 * len(input_ids):
            raise ValueError("3 places of an image")
        return input_ids


class Films(Reader):
    config = tf.PretrainedConfig(**SIZES, num_frames=4)

    def forward(self, input_ids, pixel_values, attention_mask=None):
        if attention_mask is None or pixel_values.shape[1] != 4:
            raise ValueError("frames and a mask")
        return input_ids


class Videos(Reader):
    main_input_name = "pixel_values_videos"

    def forward(self, pixel_values_videos, input_ids):
        return input_ids + pixel_values_videos.shape[4]


def test_places_of_an_image_are_said_where_no_token_stands_for_it():
    found = inputs_of(Places()).check()
    assert found["image_embeds_position_mask"].sum(1).tolist() == [3, 3] and found["input_ids"].shape[1] == 20


@pytest.mark.parametrize(
    ("cls", "kind", "name", "shape"),
    [
        (Films, ImageText, "pixel_values", (3, 4, 3, 8, 8)),
        (Videos, VideoText, "pixel_values_videos", (3, 2, 3, 8, 8)),
    ],
)
def test_a_film_comes_with_text(cls, kind, name, shape):
    found = inputs_of(cls())
    batch = found.check(3)
    assert type(found) is kind and batch[name].shape == shape and batch["input_ids"].shape == (3, 17)
    assert ("attention_mask" in batch) == (cls is Films)


def test_a_model_of_videos_of_any_length_is_given_two_frames():
    class Watcher(Reader):
        main_input_name = "pixel_values_videos"

        def forward(self, pixel_values_videos=None):
            return pixel_values_videos.mean()

    found = inputs_of(Watcher())
    assert isinstance(found, Video) and found.check()["pixel_values_videos"].shape == (2, 2, 3, 8, 8)


def test_a_text_that_is_embedded_for_every_film_is_its_own_ones():
    texts, films = torch.randn(4, 4, 5), torch.randn(4, 5)
    found = Contrastive(nn.Module(), None).result(SimpleNamespace(text_embeds=texts, video_embeds=films))
    assert torch.equal(found[:, 0], films)
    assert torch.equal(found[:, 1], torch.stack([texts[i, i] for i in range(4)]))


class Heard(Reader):
    config = tf.PretrainedConfig(**SIZES, num_mel_bins=10)

    def forward(self, input_ids, input_features, is_longer):
        if input_features.shape[1:] != (1, 96, 10) or int(is_longer.sum()):
            raise ValueError("one view")
        return input_ids


class Sounds(Reader):
    def forward(self, input_ids, input_values):
        if input_values.dim() != 3:
            raise ValueError("channels")
        return input_ids


def test_recordings_come_with_text_as_views_and_as_waves():
    batch = inputs_of(Heard()).check(3)
    assert batch["input_features"].shape == (3, 1, 96, 10) and batch["is_longer"].shape == (3, 1)
    batch = inputs_of(Sounds()).check(3)
    assert batch["input_values"].shape == (3, 1, 7680) and batch["input_ids"].shape == (3, 17)
