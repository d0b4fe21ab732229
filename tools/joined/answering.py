"""How many questions a model answers right, through the interface that every Llava has."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import LlavaProcessor

from .assembly import prompt, reply
from .questions import Question, questions
from .scenes import Scene, scene

ROWS = 24
"""Questions at once."""


@dataclass(frozen=True)
class Exam:
    """Pictures and what is asked about each."""

    scenes: list[Scene]
    asked: list[list[Question]]


@dataclass
class Marks:
    """Which answers were right: for each kind, and for each picture in order, the share."""

    kinds: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    pictures: list[float] = field(default_factory=list)

    def overall(self) -> tuple[float, float]:
        """The share of right answers and its standard error, a picture's questions taken together."""
        return _mean(self.pictures)

    def by_kind(self) -> dict[str, tuple[float, float]]:
        """The same of every kind."""
        return {kind: _mean(self.kinds[kind]) for kind in sorted(self.kinds)}


def _mean(values: Sequence[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0


def exam(count: int, each: int = 6, first: int = 0) -> Exam:
    """Fresh pictures from the number `first` on, with `each` questions."""
    scenes = [scene(number, "test") for number in range(first, first + count)]
    return Exam(scenes, [questions(one, random.Random(number), each) for number, one in enumerate(scenes, first)])


@torch.no_grad()
def evaluate(
    model: Callable[..., Any],
    processor: LlavaProcessor,
    exam: Exam,
    *,
    pictures: Sequence[np.ndarray] | None = None,
    before: Callable[[Sequence[tuple[Scene, Question]]], None] | None = None,
) -> Marks:
    """Ask every question in a row of its own, padded on the left, the right answer behind it: it counts where every
    token of it, and the end, is the likeliest.

    `model` is called as a Llava's forward is. `pictures` are shown in place of the scenes' own, none at all where they
    are empty. `before` hears which scenes and questions the next call is about.
    """
    shown = [one.picture for one in exam.scenes] if pictures is None else pictures
    rows = [(i, question) for i, asked in enumerate(exam.asked) for question in asked]
    hits: list[bool] = []
    for start in range(0, len(rows), ROWS):
        part = rows[start : start + ROWS]
        if before:
            before([(exam.scenes[i], question) for i, question in part])
        hits += _right(model, processor, [question for _, question in part], [shown[i] for i, _ in part if len(shown)])
    marks = Marks()
    of: dict[int, list[bool]] = defaultdict(list)
    for (i, question), hit in zip(rows, hits, strict=True):
        marks.kinds[question.kind].append(hit)
        of[i].append(hit)
    marks.pictures = [float(np.mean(found)) for found in of.values()]
    return marks


@torch.no_grad()
def evaluate_generated(model: Any, processor: LlavaProcessor, exam: Exam, pictures: int = 8) -> Marks:
    """As `evaluate`, by what the model writes: for rules that score tokens by the prompt's last ones, which must not
    see the answer. The tower runs once for each picture, `pictures` at a time."""
    prepare: Any = processor
    marks = Marks()
    for start in range(0, len(exam.scenes), pictures):
        scenes, asked = exam.scenes[start : start + pictures], exam.asked[start : start + pictures]
        questions = [question for some in asked for question in some]
        each = len(questions) // len(scenes)
        texts = [prompt(prepare.tokenizer, question.text, True) for question in questions]
        shown = [one.picture for one in scenes for _ in range(each)]
        inputs = prepare(
            text=texts, images=shown, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
        )
        seen = model.model.get_image_features(inputs.pop("pixel_values")[::each], return_dict=True)
        seen.pooler_output = [picture for picture in seen.pooler_output for _ in range(each)]
        right = [reply(prepare.tokenizer, question.answer) for question in questions]
        said = model.generate(
            **inputs, mm_encoder_outputs={"image": seen}, max_new_tokens=max(map(len, right)), do_sample=False
        )[:, inputs["input_ids"].shape[1] :]
        hits = [said[row, : len(tokens)].tolist() == tokens for row, tokens in enumerate(right)]
        for question, hit in zip(questions, hits, strict=True):
            marks.kinds[question.kind].append(hit)
        marks.pictures += [float(np.mean(hits[at : at + each])) for at in range(0, len(hits), each)]
    return marks


def _right(
    model: Callable[..., Any], processor: LlavaProcessor, asked: list[Question], pictures: list[np.ndarray]
) -> list[bool]:
    """Whether each question is answered right."""
    prepare: Any = processor
    tokenizer = prepare.tokenizer
    right = [reply(tokenizer, question.answer) for question in asked]
    texts = [
        f"{prompt(tokenizer, question.text, bool(pictures))} {question.answer}{tokenizer.eos_token}"
        for question in asked
    ]
    given: dict[str, Any] = {"images": pictures} if pictures else {}
    inputs = prepare(
        text=texts, **given, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
    )
    longest = max(map(len, right))
    logits = model(**inputs, logits_to_keep=longest + 1).logits
    said = logits[:, :-1].argmax(-1)
    return [said[row, -len(tokens) :].tolist() == tokens for row, tokens in enumerate(right)]
