"""A tiny model of the same make, trained from nothing in seconds: what color is the one square?"""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn.functional import cross_entropy
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from .answering import Exam
from .assembly import LAYER, join, processor
from .packing import answers, pack
from .questions import Question
from .scenes import COLORS, Scene, Split, Thing

SIDE, PATCH = 48, 8
WIDTH, LAYERS, HEADS = 64, 3, 4
RADII = (7.0, 9.0)
MEAN, STD = 0.5, 0.25
"""Of pixels from 0 to 1."""
ASKED = "What color is the square?"


def scene(seed: int, split: Split = "train") -> Scene:
    """One square of a color on gray noise."""
    draw = random.Random(f"{split} {seed}")
    noise = np.random.default_rng([seed, split == "test"]).integers(60, 200, (SIDE, SIDE, 1), dtype=np.uint8)
    picture = np.repeat(noise, 3, axis=2)
    look, radius = draw.choice(list(COLORS)), draw.uniform(*RADII)
    x, y = (draw.uniform(radius, SIDE - radius) for _ in range(2))
    picture[round(y - radius) : round(y + radius), round(x - radius) : round(x + radius)] = COLORS[look]
    return Scene(picture, (Thing("square", look, x, y, radius),), PATCH)


def exam(count: int, first: int = 0) -> Exam:
    """Fresh pictures from the number `first` on."""
    scenes = [scene(number, "test") for number in range(first, first + count)]
    return Exam(scenes, list(map(_questions, scenes)))


@dataclass(frozen=True)
class Settings:
    """Enough to answer nearly always."""

    steps: int = 120
    batch: int = 24  # pictures
    rate: float = 3e-3
    seed: int = 0


def make(settings: Settings) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Model and processor, trained."""
    torch.manual_seed(settings.seed)
    words = sorted(set(re.findall(r"\w+|\?", " ".join([ASKED, *COLORS]))))
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*special, *words])}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side="left",
    )
    shape: Any = {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
    }
    tower = CLIPVisionModel(CLIPVisionConfig(**shape, image_size=SIDE, patch_size=PATCH))
    llama = LlamaForCausalLM(
        LlamaConfig(
            **shape,
            vocab_size=len(special) + len(words) + 1,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
    )
    model = join(tower, llama, tokenizer, (SIDE // PATCH) ** 2)
    prepare = processor(tokenizer, SIDE, PATCH, [MEAN] * 3, [STD] * 3)
    learn(model, tokenizer, settings)
    return model, prepare


def learn(model: LlavaForConditionalGeneration, tokenizer: Any, settings: Settings) -> None:
    """All of it at once, on new pictures in every step."""
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    for step in range(settings.steps):
        decay = 0.5 + 0.5 * math.cos(math.pi * step / settings.steps)
        optimizer.param_groups[0]["lr"] = settings.rate * min(1, (step + 1) / 30) * decay
        scenes = [scene(step * settings.batch + i) for i in range(settings.batch)]
        pixels = torch.from_numpy(np.stack([one.picture for one in scenes])).permute(0, 3, 1, 2) / 255
        pixels = (pixels - MEAN) / STD  # as the processor, which takes as long as the step
        states = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
        packed = pack(list(map(_questions, scenes)), tokenizer, states[LAYER].shape[1] - 1)
        logits, right = answers(model, tokenizer.bos_token_id, states[LAYER][:, 1:], packed)
        loss = cross_entropy(logits, right)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()


def _questions(scene: Scene) -> list[Question]:
    return [Question("color", ASKED, scene.things[0].look, 0)]
