"""Tiny random models of more than text: of images and text, sound, films, series."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import spoken
import torch
import transformers as tf
from torch import nn

from compress.checkpoint.open import Checkpoint, open_checkpoint

VOCABULARY, IMAGE = spoken.VOCABULARY, 3
VISION = dict(
    hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=16, patch_size=8
)
SPECIAL = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2)
TEXT = dict(
    **dict(hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2),
    **dict(vocab_size=VOCABULARY, max_position_embeddings=256, head_dim=12, **SPECIAL),
)
ENCODER = dict(
    **dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4),
    **dict(vocab_size=VOCABULARY, max_position_embeddings=64, **SPECIAL),
)
SPEECH = dict(
    **dict(vocab_size=32, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48),
    **dict(conv_dim=(16, 16), conv_stride=(5, 4), conv_kernel=(10, 8), num_feat_extract_layers=2, pad_token_id=0),
    **dict(num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4),
)
BOTH = dict(d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4)
ROPE = dict(rope_type="default", rope_theta=10000.0, mrope_section=[2, 2, 2])


def _qwen() -> nn.Module:
    seen = dict(depth=2, embed_dim=32, num_heads=4, hidden_size=48, mlp_ratio=2, patch_size=4)
    return tf.Qwen2VLForConditionalGeneration(
        tf.Qwen2VLConfig(
            vision_config=dict(**seen, spatial_merge_size=2, temporal_patch_size=2),
            text_config=dict(**TEXT, rope_parameters=ROPE),
            **dict(image_token_id=IMAGE, video_token_id=4, vision_start_token_id=5, vision_end_token_id=6),
        )
    )


def _whisper() -> nn.Module:
    sizes = dict(encoder_ffn_dim=48, decoder_ffn_dim=48, num_mel_bins=16, max_source_positions=20)
    return tf.WhisperForConditionalGeneration(
        tf.WhisperConfig(
            **dict(vocab_size=VOCABULARY, **BOTH, **sizes, **SPECIAL, decoder_start_token_id=1),
            **dict(max_target_positions=64, suppress_tokens=None, begin_suppress_tokens=None),
        )
    )


def _series() -> nn.Module:
    sizes = dict(encoder_ffn_dim=48, decoder_ffn_dim=48, prediction_length=6, context_length=12)
    known = dict(num_static_categorical_features=1, cardinality=[5], embedding_dimension=[4], num_time_features=2)
    config = tf.TimeSeriesTransformerConfig(**BOTH, **sizes, **known, lags_sequence=[1, 2, 3])
    return tf.TimeSeriesTransformerForPrediction(config)


MODELS: dict[str, Callable[[], Any]] = {
    "llava": lambda: tf.LlavaForConditionalGeneration(
        tf.LlavaConfig(
            vision_config=tf.CLIPVisionConfig(**VISION),
            text_config=tf.LlamaConfig(**TEXT),
            image_token_index=IMAGE,
            vision_feature_layer=-1,
        )
    ),
    "paligemma": lambda: tf.PaliGemmaForConditionalGeneration(
        tf.PaliGemmaConfig(
            vision_config=tf.SiglipVisionConfig(**VISION),
            text_config=tf.GemmaConfig(**TEXT),
            image_token_index=IMAGE,
            projection_dim=48,
        )
    ),
    "idefics3": lambda: tf.Idefics3ForConditionalGeneration(
        tf.Idefics3Config(
            vision_config=VISION, text_config=tf.LlamaConfig(**TEXT), image_token_id=IMAGE, scale_factor=2
        )
    ),
    "qwen2_vl": _qwen,
    "clip": lambda: tf.CLIPModel(tf.CLIPConfig(text_config=ENCODER, vision_config=VISION, projection_dim=24)),
    "siglip": lambda: tf.SiglipModel(tf.SiglipConfig(text_config=ENCODER, vision_config=VISION)),
    "whisper": _whisper,
    "wav2vec2": lambda: tf.Wav2Vec2ForCTC(tf.Wav2Vec2Config(**SPEECH)),
    "videomae": lambda: tf.VideoMAEForVideoClassification(
        tf.VideoMAEConfig(**VISION, num_frames=4, tubelet_size=2, num_labels=5)
    ),
    "series": _series,
}


def save(name: str, folder: Path, *, tokenizer: bool = False) -> Checkpoint:
    """A random model of MODELS, none of whose biases and gains is constant, with a tokenizer where one is asked for."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MODELS[name]().eval()
        for tensor in model.state_dict().values():
            if tensor.dim() == 1 and tensor.is_floating_point():
                tensor += 0.1 * torch.randn_like(tensor)
    model.save_pretrained(folder)
    if tokenizer:
        spoken._tokenizer().save_pretrained(folder)
    return open_checkpoint(folder)


def stock(checkpoint: Checkpoint) -> Any:
    """The saved model as stock transformers load it."""
    cls: Any = getattr(tf, checkpoint.config["architectures"][0])
    return cls.from_pretrained(checkpoint.folder).eval()
