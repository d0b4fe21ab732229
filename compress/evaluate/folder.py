"""One model measured on demand: quality, speed, memory and size, alone or beside the dense one."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from compress.calibrate.data import load_tokenizer
from compress.checkpoint.model import load_config, model_class
from compress.checkpoint.open import Checkpoint
from compress.console import say
from compress.errors import InputError, ModelError
from compress.evaluate.accuracy import CURE, accuracy, read_labelled
from compress.evaluate.harness import Harness
from compress.evaluate.load import held_out, load_model, text_of
from compress.evaluate.ort_latency import ort_speed
from compress.evaluate.perplexity import perplexity
from compress.evaluate.similarity import compare, embed
from compress.evaluate.size import peak_memory, size
from compress.evaluate.speed import speed
from compress.onnx import FILE
from compress.surgery.source import Source

PREDICTS = ("CausalLM", "LMHead", "MaskedLM", "Conditional")
CLASSIFIES = "ForSequenceClassification"


@dataclass(frozen=True)
class Questions:
    """What is asked of a model: text (`data`, a source's name, a file, or a hub id) in `samples` sequences of `length`
    tokens, lm-eval's `tasks` (`limit` questions of each at most), and whether it is `timed`."""

    data: str | None = None
    samples: int = 64
    length: int = 256
    tasks: tuple[str, ...] = ()
    task_folder: Path | None = None
    limit: int | None = None
    timed: bool = False
    seed: int = 0
    device: str = "cpu"


@dataclass
class _Asked:
    """The questions in the form in which each model is asked them."""

    questions: Questions
    harness: Harness | None
    rows: list[dict[str, Tensor]] = field(default_factory=list)
    labelled: list[tuple[str, int]] = field(default_factory=list)


def evaluate_folder(checkpoint: Checkpoint, questions: Questions, dense: Checkpoint | None = None) -> dict[str, Any]:
    """All figures of a model as data: `parameters`, `bytes`, `flops` (of `flops_length` tokens), `peak_memory` of this
    process, and those of perplexity, accuracy, similarity, speed, speed of its ONNX graph (`onnx`) and tasks that it
    has; `notes` say what it has not.

    `against` holds the same of `dense`, which is asked the same questions after the first model has been let go.
    Raises InputError for unusable text, labels or task names, before any weight is read.
    """
    asked = _prepare(checkpoint, questions)
    found, embedded = _ask(checkpoint, asked)
    found["peak_memory"] = peak_memory()
    if dense is not None:
        found["against"], other = _ask(dense, asked)
        if embedded is not None and other is not None:
            found["similarity"] = asdict(compare(other, embedded, asked.rows[0]["input_ids"].shape[1]))
    elif embedded is not None:
        found["notes"].append("an encoder's quality is the likeness of its embeddings: pass --against DENSE")
    return found


def _prepare(checkpoint: Checkpoint, questions: Questions) -> _Asked:
    asked = _Asked(questions, Harness(questions.tasks, questions.task_folder) if questions.tasks else None)
    config = load_config(checkpoint)
    if CLASSIFIES in model_class(config, checkpoint).__name__:
        if questions.data is None or Path(questions.data).suffix != ".jsonl":
            raise InputError(f"--data: a classifier is measured on a .jsonl file; {CURE}")
        asked.labelled = read_labelled(Path(questions.data), config.id2label, questions.samples)  # pyright: ignore
    data = text_of(None if asked.labelled else questions.data)
    asked.rows = held_out(
        checkpoint, data=data, length=questions.length, samples=questions.samples, seed=questions.seed
    )
    return asked


def _ask(checkpoint: Checkpoint, asked: _Asked) -> tuple[dict[str, Any], Tensor | None]:
    """The figures of one model, and the embeddings of the texts where it is an encoder."""
    found: dict[str, Any] = {"model": str(checkpoint.folder), "notes": []}
    found |= _cost(checkpoint, asked.rows[0]["input_ids"].shape[1], found["notes"])
    tokenizer, embedded = load_tokenizer(checkpoint), None
    say(f"evaluating {checkpoint.folder}")
    model = load_model(checkpoint, asked.questions.device)
    found["architecture"] = type(model).__name__
    if tokenizer is None:
        found["notes"].append("quality not measured: the model has no tokenizer")
    elif asked.labelled:
        right = accuracy(model, tokenizer, asked.labelled, length=asked.questions.length)
        found["accuracy"] = asdict(right)
    elif any(word in type(model).__name__ for word in PREDICTS):
        found["perplexity"] = asdict(perplexity(model, asked.rows))
    else:
        embedded, _ = embed(model, asked.rows)
    if asked.questions.timed:
        prompt = asked.rows[0]["input_ids"][:1]
        found["speed"] = asdict(speed(model, prompt))
        if (graph := checkpoint.folder / "onnx" / FILE).is_file():
            found["onnx"] = asdict(ort_speed(graph, prompt.numpy()))
    if asked.harness is not None:
        scores = asked.harness.run(model, tokenizer, limit=asked.questions.limit)
        found["tasks"] = [asdict(score) for score in scores]
    return found, embedded


def _cost(checkpoint: Checkpoint, length: int, notes: list[str]) -> dict[str, int]:
    measured = size(checkpoint.folder)
    found = {"parameters": measured.parameters, "bytes": measured.bytes}
    try:
        found["flops"] = Source.of(checkpoint).graph.flops(sequence=length)
        found["flops_length"] = length
    except ModelError as error:
        notes.append(f"FLOPs not counted: {error}")
    return found
