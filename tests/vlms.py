"""Tiny models of every family that rules about visual tokens hold for, and prompts with pictures for them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import transformers as tf
from torch import Tensor

IMAGE, VISION = 95, 94
"""The token of a picture's patches, and another special one."""

TEXT: dict[str, Any] = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4}
TEXT |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0, "eos_token_id": None}
TOWER: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
TOWER |= {"image_size": 24, "patch_size": 4}
GRID: dict[str, Any] = {"depth": 3, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 1}
MROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
PINPOINTS = [[48, 24], [24, 48], [48, 48]]


def _llava(tower: Any) -> tf.PreTrainedModel:
    config = tf.LlavaConfig(
        vision_config=tower,
        text_config=tf.LlamaConfig(**TEXT),
        image_token_index=IMAGE,
        vision_feature_layer=-2,
        vision_feature_select_strategy="full" if tower.model_type == "siglip_vision_model" else "default",
    )
    return tf.LlavaForConditionalGeneration(config)


def _next() -> tf.PreTrainedModel:
    config = tf.LlavaNextConfig(
        vision_config=tf.CLIPVisionConfig(**TOWER),
        text_config=tf.LlamaConfig(**TEXT),
        image_token_index=IMAGE,
        image_grid_pinpoints=PINPOINTS,
    )
    return tf.LlavaNextForConditionalGeneration(config)


def _onevision() -> tf.PreTrainedModel:
    config = tf.LlavaOnevisionConfig(
        vision_config=tf.SiglipVisionConfig(**TOWER),
        text_config=tf.Qwen2Config(**TEXT),
        image_token_index=IMAGE,
        video_token_index=VISION,
        image_grid_pinpoints=PINPOINTS,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    return tf.LlavaOnevisionForConditionalGeneration(config)


def _qwen(name: str) -> tf.PreTrainedModel:
    ids = {"image_token_id": IMAGE, "video_token_id": VISION, "vision_start_token_id": 93, "vision_end_token_id": 92}
    towers = {
        "Qwen2VL": {"embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2},
        "Qwen2_5_VL": {"hidden_size": 16, "out_hidden_size": 32, "window_size": 16, "fullatt_block_indexes": [1, 2]},
        "Qwen3VL": {"hidden_size": 16, "out_hidden_size": 32, "deepstack_visual_indexes": [0]},
    }
    sizes = {} if name == "Qwen2VL" else {"intermediate_size": 24}
    if name == "Qwen3VL":
        sizes["num_position_embeddings"] = 36
    tower = {**GRID, **sizes, **towers[name]}
    config = getattr(tf, f"{name}Config")(vision_config=tower, text_config={**TEXT, "rope_parameters": MROPE}, **ids)
    return getattr(tf, f"{name}ForConditionalGeneration")(config)


def _internvl() -> tf.PreTrainedModel:
    config = tf.InternVLConfig(
        vision_config={**TOWER, "image_size": [24, 24], "patch_size": [4, 4]},
        text_config=tf.Qwen2Config(**TEXT),
        image_token_id=IMAGE,
        image_seq_length=9,
    )
    return tf.InternVLForConditionalGeneration(config)


def _idefics(name: str) -> tf.PreTrainedModel:
    config = getattr(tf, f"{name}Config")(
        vision_config=TOWER, text_config=tf.LlamaConfig(**TEXT), image_token_id=IMAGE, scale_factor=2, pad_token_id=0
    )
    return getattr(tf, f"{name}ForConditionalGeneration")(config)


def _gemma() -> tf.PreTrainedModel:
    text = {**TEXT, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * 2}
    config = tf.Gemma3Config(
        vision_config=tf.SiglipVisionConfig(**TOWER),
        text_config=tf.Gemma3TextConfig(**text),
        mm_tokens_per_image=9,
        image_token_index=IMAGE,
    )
    return tf.Gemma3ForConditionalGeneration(config)


FAMILIES: dict[str, Callable[[], tf.PreTrainedModel]] = {
    "llava-clip": lambda: _llava(tf.CLIPVisionConfig(**TOWER)),
    "llava-siglip": lambda: _llava(tf.SiglipVisionConfig(**TOWER)),
    "llava-dinov2": lambda: _llava(tf.Dinov2Config(**TOWER)),
    "llava-next": _next,
    "llava-onevision": _onevision,
    "qwen2-vl": lambda: _qwen("Qwen2VL"),
    "qwen2.5-vl": lambda: _qwen("Qwen2_5_VL"),
    "qwen3-vl": lambda: _qwen("Qwen3VL"),
    "internvl": _internvl,
    "idefics3": lambda: _idefics("Idefics3"),
    "smolvlm": lambda: _idefics("SmolVLM"),
    "gemma3": _gemma,
}
GRIDS, TILES = ("qwen2-vl", "qwen2.5-vl", "qwen3-vl"), ("llava-next", "llava-onevision")
CLS = ("llava-clip", "llava-dinov2", "llava-next", "internvl")


@cache
def vlm(name: str) -> tf.PreTrainedModel:
    """A tiny model with random weights, in float32; shared, so leave it as it is."""
    torch.manual_seed(0)
    return lively(FAMILIES[name]())


def lively(model: tf.PreTrainedModel) -> tf.PreTrainedModel:
    """The model with weights drawn so large that its logits differ, which ends no text of its own accord."""
    model = model.eval()
    with torch.no_grad():
        for parameter in model.parameters():  # initial weights are so small that all logits are alike
            if parameter.dim() > 1:
                parameter.normal_(0, parameter.shape[-1] ** -0.5)
    assert model.generation_config is not None
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, None
    return model


def tokens(name: str) -> int:
    """How many visual tokens one of the pictures of `prompt` has."""
    return {
        "llava-next": 36 + 72 + 6,
        "llava-onevision": 36 + 72 + 6,
        "qwen2-vl": 12,
        "qwen2.5-vl": 12,
        "qwen3-vl": 12,
    }.get(name, 36 if name.startswith("llava") else 9)


def prompt(name: str, rows: int = 2, pictures: int = 1, *, pad: int = 0, seed: int = 0) -> dict[str, Tensor]:
    """`rows` prompts with `pictures` each, between text; the first has `pad` tokens of padding on its left."""
    make = torch.Generator().manual_seed(seed)
    count = tokens(name)
    words = lambda number: torch.randint(1, 90, (rows, number), generator=make)  # noqa: E731
    parts = [words(3 + pad)]
    for _ in range(pictures):
        parts += [torch.full((rows, count), IMAGE), words(2)]
    ids = torch.cat([*parts, words(4)], 1)
    mask = torch.ones_like(ids)
    ids[0, :pad], mask[0, :pad] = 0, 0
    given = {"input_ids": ids, "attention_mask": mask, **_pixels(name, rows, pictures, make)}
    if name in GRIDS:
        given["mm_token_type_ids"] = (ids == IMAGE).int()
    if name == "gemma3":
        given["token_type_ids"] = (ids == IMAGE).long()
    return given


def _pixels(name: str, rows: int, pictures: int, make: torch.Generator) -> dict[str, Tensor]:
    total = rows * pictures
    if name in GRIDS:
        size = torch.tensor([[1, 6, 8]]).repeat(total, 1)
        return {"pixel_values": torch.randn(total * 48, 3 * 16, generator=make), "image_grid_thw": size}
    if name in TILES:
        pixels = torch.randn(total, 3, 3, 24, 24, generator=make)
        return {"pixel_values": pixels, "image_sizes": torch.tensor([[24, 48]]).repeat(total, 1)}
    shape = (rows, pictures) if name in ("idefics3", "smolvlm") else (total,)
    return {"pixel_values": torch.randn(*shape, 3, 24, 24, generator=make)}


def alone(given: dict[str, Tensor], row: int, pad: int = 0) -> dict[str, Tensor]:
    """One row of `prompt`'s batch, without its padding."""
    rows, length = given["input_ids"].shape
    return {
        key: value[row : row + 1, pad:]
        if value.shape == (rows, length)
        else value[len(value) // rows * row : len(value) // rows * (row + 1)]
        for key, value in given.items()
    }


def ragged(name: str, *, left: bool = True, first: int = 1) -> dict[str, Tensor]:
    """A prompt with one picture, or `first`, and one with two, the first padded on its `left` or its right."""
    one, two = prompt(name, rows=1, pictures=first, seed=1), prompt(name, rows=1, pictures=2, seed=2)
    length, missing = one["input_ids"].shape[1], two["input_ids"].shape[1] - one["input_ids"].shape[1]
    found = {}
    for key, value in one.items():
        other = two[key]
        if value.shape == (1, length):
            value = torch.nn.functional.pad(value, (missing, 0) if left else (0, missing))
        elif value.shape[1:] != other.shape[1:]:  # pictures by prompt: pictures that there are not are zeros
            value = torch.cat([value, torch.zeros_like(other)[:, value.shape[1] :]], 1)
        found[key] = torch.cat([value, other])
    return found


@cache
def eager(name: str) -> tf.PreTrainedModel:
    """A copy of `vlm` with eager attention."""
    model = copy.deepcopy(vlm(name))
    model.set_attn_implementation("eager")
    return model
