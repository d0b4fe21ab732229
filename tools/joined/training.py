"""How the joined model is trained: the tower's features once, the projector on what patches show, then on answers.

What each stage found is kept in a folder until the model is finished, so that one that was stopped goes on there.
"""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import LlavaForConditionalGeneration

from compress.files.cache import new_file

from .assembly import LAYER
from .packing import answers, pack
from .questions import questions
from .scenes import Scene, scene
from .targets import targets, worth

KEEP_EVERY = 100
"""Steps."""


@dataclass(frozen=True)
class Settings:
    """Found by experiment."""

    layers: int = 4  # of the language model's
    pictures: int = 3000
    warm_up: int = 400  # steps of the projector alone
    patches: int = 2048  # in each of them
    warm_up_rate: float = 2e-3
    cycles: tuple[int, ...] = (1400, 450)  # steps, the rate falling to nothing in each of them
    batch: int = 4  # pictures
    questions: int = 16  # of each
    rate: float = 5e-4  # of the language model's layers
    projector_rate: float = 1e-3
    seed: int = 0
    asked: str = "free places"  # what pictures and questions are like; part of the record, as an older model's differ


def bfloat16() -> torch.autocast:
    """Matrices in half the precision, where the processor has it."""
    return torch.autocast("cpu", torch.bfloat16, enabled=torch.ops.mkldnn._is_mkldnn_bf16_supported())


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def train(model: LlavaForConditionalGeneration, processor: Any, settings: Settings, stages: Path) -> None:
    """All stages. `stages` is the folder of what is kept."""
    tokenizer = processor.tokenizer
    torch.manual_seed(settings.seed)
    scenes = [scene(number) for number in range(settings.pictures)]
    seen = features(model, processor, scenes, stages / "features.pt")
    model.requires_grad_(False)
    projector: Any = model.model.multi_modal_projector
    projector.requires_grad_(True)
    if (stages / "projector.pt").is_file():
        projector.load_state_dict(torch.load(stages / "projector.pt"))
    else:
        warm_up(model, tokenizer, scenes, seen, settings)
        _save(projector.state_dict(), stages / "projector.pt")
    learn(model, tokenizer, scenes, seen, settings, stages / "learned.pt")
    model.requires_grad_(True)


@torch.no_grad()
def features(model: LlavaForConditionalGeneration, processor: Any, scenes: list[Scene], file: Path) -> Tensor:
    """What the tower gives the projector, `[pictures, image tokens, width]` in float16, read out of `file` if there."""
    if file.is_file():
        return torch.load(file)
    found, start = [], time.process_time()
    tower: Any = model.model.vision_tower
    for first in range(0, len(scenes), 25):
        pictures = [one.picture for one in scenes[first : first + 25]]
        pixels = processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
        with bfloat16():
            states = tower(pixels, output_hidden_states=True).hidden_states
        found.append(states[LAYER][:, 1:].half())
        if first % 500 == 475:
            say(f"features of {first + 25} of {len(scenes)} pictures, {time.process_time() - start:.0f} s of processor")
    _save(torch.cat(found), file)
    return torch.cat(found)


def warm_up(
    model: LlavaForConditionalGeneration,
    tokenizer: Any,
    scenes: list[Scene],
    seen: Tensor,
    settings: Settings,
) -> None:
    """Regress the projector's outputs on the embeddings of the words for what each patch shows and where it is.

    The projector starts with what makes the features' channels alike in size.
    """
    projector: Any = model.model.multi_modal_projector
    embeddings: Any = model.get_input_embeddings().weight
    embeddings = embeddings.detach()
    inputs = seen.flatten(0, 1)
    some = seen[:200].flatten(0, 1).float()
    first, second = projector.linear_1, projector.linear_2
    with torch.no_grad():
        nn.init.normal_(first.weight, std=first.in_features**-0.5)
        first.weight /= some.std(0)
        first.bias.copy_(-first.weight @ some.mean(0))
        nn.init.normal_(second.weight, std=1.3 * float(embeddings.std()) * second.in_features**-0.5)
    words = targets(scenes, embeddings, tokenizer)
    weights = worth(scenes)
    optimizer = torch.optim.AdamW(projector.parameters(), settings.warm_up_rate)
    start = time.process_time()
    for step in range(settings.warm_up):
        done = step / settings.warm_up
        optimizer.param_groups[0]["lr"] = settings.warm_up_rate * min(1, step / 20) * (1 - done)
        chosen = torch.randint(len(inputs), (settings.patches,))
        apart = (projector(inputs[chosen].float()) - words[chosen].float()) ** 2
        loss = (weights[chosen, None] * apart).mean() / embeddings.var()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 99:
            say(f"warm-up {step + 1} of {settings.warm_up}: {loss.item():.3f}, {time.process_time() - start:.0f} s")


def learn(
    model: LlavaForConditionalGeneration,
    tokenizer: Any,
    scenes: list[Scene],
    seen: Tensor,
    settings: Settings,
    file: Path,
) -> None:
    """Train the projector and the language model's layers on answers; embeddings stay. Goes on from `file` if there."""
    projector: Any = model.model.multi_modal_projector
    language: Any = model.model.language_model
    language.layers.requires_grad_(True)
    language.norm.requires_grad_(True)
    both = nn.ModuleList([projector, language.layers, language.norm])
    rates = [settings.projector_rate, settings.rate]
    groups = [list(projector.parameters()), [*language.layers.parameters(), *language.norm.parameters()]]
    optimizer = torch.optim.AdamW(
        [{"params": group, "lr": rate} for group, rate in zip(groups, rates, strict=True)],
        betas=(0.9, 0.98),
        weight_decay=0.01,
        fused=True,
    )
    done = 0
    if file.is_file():
        kept = torch.load(file)
        both.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        done = kept["step"]
    smooth, begin = None, time.process_time()
    shares = [_share(step, steps) for steps in settings.cycles for step in range(steps)]
    for step, (chosen, share) in enumerate(zip(_batches(settings, len(shares)), shares, strict=True)):
        if step < done:
            continue
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * share
        draw = random.Random(f"{settings.seed} {step}")
        asked = [questions(scenes[i], draw, settings.questions) for i in chosen]
        with bfloat16():
            packed = pack(asked, tokenizer, seen.shape[1])
            logits, right = answers(model, tokenizer.bos_token_id, seen[chosen], packed)
        loss = cross_entropy(logits.float(), right)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimizer.step()
        smooth = loss.item() if smooth is None else 0.95 * smooth + 0.05 * loss.item()
        if (step + 1) % 20 == 0:
            say(f"step {step + 1} of {len(shares)}: loss {smooth:.3f}, {time.process_time() - begin:.0f} s")
        if (step + 1) % KEEP_EVERY == 0:
            state = {"model": both.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            _save(state, file)


def _share(step: int, steps: int) -> float:
    """Of the learning rate."""
    return min(1, (step + 1) / 30) * (0.5 + 0.5 * math.cos(math.pi * step / steps))


def _batches(settings: Settings, steps: int) -> Iterator[list[int]]:
    """Pictures of each step, every one once before any twice."""
    draw = torch.Generator().manual_seed(settings.seed)
    order: list[int] = []
    for _ in range(steps):
        if len(order) < settings.batch:
            order = torch.randperm(settings.pictures, generator=draw).tolist()
        yield order[: settings.batch]
        order = order[settings.batch :]


def _save(value: object, file: Path) -> None:
    with new_file(file) as opened:
        torch.save(value, opened)
