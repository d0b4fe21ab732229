"""What every preset that prunes visual tokens leaves of the same four pictures, and what the model then answers.

python tools/bench/token_gallery.py > docs/visual-tokens-gallery.md     # and docs/tokens/*.jpg

The model is that of tools/joined_vlm.py, which is trained on first use.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import joined_vlm
import torch
from apart import ROOT
from joined.answering import Exam, exam
from joined.assembly import prompt
from transformers import LlavaForConditionalGeneration, LlavaProcessor
from transformers.utils import logging

from compress.errors import ModelError
from compress.files.shipped import names, shipped
from compress.recipe.read import read_recipe
from compress.recipe.tokens import FOLDER, preset
from compress.report.token_pictures import pictures
from compress.runtime import attach, traced
from compress.runtime.tokens.expand import expanded
from compress.runtime.tokens.find import check, places_of
from compress.runtime.tokens.trace import Trace

IMAGES = ROOT / "docs" / "tokens"
KEEP, PICTURES, EXAM = 0.25, 4, 24
"""The share of tokens that is left; so many pictures, out of so many of the exam."""

SIDE, DPI, QUALITY = 1.15, 100, 70

HEAD = """# What is left of pictures

<!-- made by `python tools/bench/token_gallery.py > docs/visual-tokens-gallery.md` -->

Every preset of [visual tokens](visual-tokens.md) on the same four pictures, each with one question, keeping {share} of
the 11 × 11 tokens in the end: what is grey went, tokens of one colour were merged into the one with the frame. The
columns are the stages of the preset. The model is a small one that was trained for this page and for the benchmarks
(`tools/joined_vlm.py`: DINOv2 small, and four layers of SmolLM2-135M). The pictures are the first whose question it
answers rightly with all tokens, each of another kind, so the answers are examples and no measure.

|  | question | answer |
|---|---|---|
"""


def main() -> None:
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    folder = joined_vlm.folder()
    model = LlavaForConditionalGeneration.from_pretrained(folder).eval()
    processor = LlavaProcessor.from_pretrained(folder)
    asked = chosen(model, processor)
    right = [one[0].answer for one in asked.asked]
    print(HEAD.format(share=f"{KEEP:.0%}"), end="")
    for number, one in enumerate(asked.asked, 1):
        print(f"| {number} | {one[0].text} | {one[0].answer} |")
    IMAGES.mkdir(exist_ok=True)
    for name in (name for name in names() if name.startswith(FOLDER)):
        print(section(name, model, processor, asked, right), end="", flush=True)


def chosen(model: Any, processor: Any) -> Exam:
    """The first pictures whose question the dense model answers rightly, no two of one kind."""
    whole = exam(EXAM, each=1)
    found: dict[str, int] = {}
    for number, (questions, said) in enumerate(zip(whole.asked, answers(model, processor, whole), strict=True)):
        if said == questions[0].answer:
            found.setdefault(questions[0].kind, number)
    numbers = list(found.values())[:PICTURES]
    return Exam([whole.scenes[number] for number in numbers], [whole.asked[number] for number in numbers])


def section(name: str, model: Any, processor: Any, asked: Exam, right: Sequence[str]) -> str:
    """A preset's part of the page; its picture is written."""
    short, path = name.removeprefix(FOLDER), shipped(name)
    assert path is not None
    head = f"\n## {short}\n\n{read_recipe(path).about}.\n\n"
    places = places_of(model)
    stages = expanded(preset(short).asked[0], KEEP, places)
    try:
        check(places, stages)
    except ModelError as error:
        return f"{head}Not for this model: {str(error).partition(': ')[2]}.\n"
    model.config.compress = {
        "version": 1,
        "rules": [{"kind": "tokens", "stages": [stage.written() for stage in stages]}],
    }
    try:
        with attach(model), traced(model) as traces:
            said = answers(model, processor, asked)
    finally:
        del model.config.compress
    figure = pictures(traces[:1], side=SIDE)
    assert figure is not None
    file = IMAGES / f"{short}.jpg"
    figure.savefig(file, dpi=DPI, facecolor="white", pil_kwargs={"quality": QUALITY, "optimize": True})
    marked = (f"{answer} ({'right' if answer == best else 'wrong'})" for answer, best in zip(said, right, strict=True))
    return (
        f"{head}![what {short} leaves of four pictures](tokens/{file.name})\n\n"
        f"Read by the decoder's layers in the mean: {read(traces[0], len(places.layers)):.0%} of the visual tokens. "
        f"Answers: {', '.join(marked)}.\n"
    )


def read(trace: Trace, layers: int) -> float:
    """The share of the visual tokens that the decoder's layers read."""
    whole, text = trace.valid.sum(1), (trace.valid & ~trace.visual).sum(1)
    return float(((trace.lengths(layers) - text) / (whole - text)).mean())


@torch.inference_mode()
def answers(model: Any, processor: Any, asked: Exam) -> list[str]:
    """What the model answers to the first question about each picture."""
    texts = [prompt(processor.tokenizer, questions[0].text) for questions in asked.asked]
    inputs = processor(
        text=texts,
        images=[scene.picture for scene in asked.scenes],
        return_tensors="pt",
        padding=True,
        padding_side="left",
        add_special_tokens=False,
    )
    made = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    written = processor.tokenizer.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in written]


if __name__ == "__main__":
    main()
