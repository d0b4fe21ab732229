"""One model measured on demand: quality, speed, memory and size, alone or beside the dense one."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from compress.checkpoint.open import Checkpoint
from compress.console import say
from compress.data.tokens import load_tokenizer
from compress.errors import InputError, ModelError
from compress.evaluate.accuracy import CURE, accuracy, read_labelled
from compress.evaluate.budget import Budget
from compress.evaluate.change import Change, likeness_change, loss_change
from compress.evaluate.harness import Harness
from compress.evaluate.load import held_out, load_model, named, predicts, text_of
from compress.evaluate.ort_latency import ort_speed, ort_speeds
from compress.evaluate.perplexity import Losses, all_losses
from compress.evaluate.similarity import compare, embed, sampled
from compress.evaluate.size import peak_memory, size
from compress.evaluate.speed import speed, speeds
from compress.evaluate.whole import Read
from compress.model.build import load_config, model_class
from compress.model.source import Source
from compress.onnx import FILE

CLASSIFIES = "ForSequenceClassification"


@dataclass(frozen=True)
class Questions:
    """What is asked of a model: text (`data`, a source's name, a file, or a hub id) in `samples` sequences of `length`
    tokens, the tasks of the `harness` (`limit` questions of each at most), and whether it is `timed`."""

    data: str | None = None
    samples: int = 64
    length: int = 256
    harness: Harness | None = None
    limit: int | None = None
    timed: bool = False
    seed: int = 0
    device: str = "cpu"


@dataclass
class _Asked:
    """The questions in the form in which each model is asked them."""

    questions: Questions
    text: str | None = None
    rows: list[dict[str, Tensor]] = field(default_factory=list)
    labelled: list[tuple[str, int]] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Tokens of a sequence."""
        return self.rows[0]["input_ids"].shape[1]


def evaluate_folder(checkpoint: Checkpoint, questions: Questions, dense: Checkpoint | None = None) -> dict[str, Any]:
    """All figures of a model as data: `parameters`, `bytes`, `flops` (of `flops_length` tokens), `peak_memory` of this
    process, and those of perplexity, accuracy, similarity, speed, speed of its ONNX graph (`onnx`) and tasks that it
    has; `text` is what perplexity and similarity are of, `notes` say what it has not.

    `against` holds the same of `dense`, which is asked the same questions after the first model has been let go;
    `changes` say how sure the differences are. Both are timed in turns, side by side in memory. Raises InputError for
    unusable text or labels, before any weight is read.
    """
    asked = _prepare(checkpoint, questions)
    found, read = _ask(checkpoint, asked)
    if dense is not None:
        found["against"], other = _ask(dense, asked)
        found["changes"] = {name: asdict(change) for name, change in _changes(found, other, read, asked.length).items()}
    elif isinstance(read, Tensor):
        found["notes"].append("an encoder's quality is the likeness of its embeddings: pass --against DENSE")
    if questions.timed:
        _time(checkpoint, dense, asked, found)
    found["peak_memory"] = peak_memory()
    return found


def _changes(found: dict[str, Any], before: Read | None, after: Read | None, length: int) -> dict[str, Change]:
    """How the answers of the same texts differ; the similarity is put into `found`."""
    if isinstance(before, Losses) and isinstance(after, Losses):
        same = before.tokens == after.tokens  # two tokenizers cut a text differently
        return {"perplexity": loss_change(before.mean, after.mean)} if same else {}
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        found["similarity"] = asdict(compare(before, after, length))
        return {name: likeness_change(value, len(after)) for name, value in sampled(before, after).items()}
    return {}


def _prepare(checkpoint: Checkpoint, questions: Questions) -> _Asked:
    asked = _Asked(questions)
    config = load_config(checkpoint)
    if CLASSIFIES in model_class(config, checkpoint).__name__:
        if questions.data is None or Path(questions.data).suffix != ".jsonl":
            raise InputError(f"--data: a classifier is measured on a .jsonl file; {CURE}")
        asked.labelled = read_labelled(Path(questions.data), config.id2label, questions.samples)  # pyright: ignore
    data = text_of(None if asked.labelled else questions.data)
    asked.rows = held_out(
        checkpoint, data=data, length=questions.length, samples=questions.samples, seed=questions.seed
    )
    if load_tokenizer(checkpoint) is not None and not asked.labelled:
        asked.text = named(data)
    return asked


def _ask(checkpoint: Checkpoint, asked: _Asked) -> tuple[dict[str, Any], Read | None]:
    """The figures of one model, and the losses or embeddings of the texts."""
    found: dict[str, Any] = {"model": str(checkpoint.folder), "notes": [], "text": asked.text}
    found |= _cost(checkpoint, asked.length, found["notes"])
    tokenizer, read = load_tokenizer(checkpoint), None
    say(f"evaluating {checkpoint.folder}")
    model = load_model(checkpoint, asked.questions.device)
    found["architecture"] = type(model).__name__
    if tokenizer is None:
        found["notes"].append("quality not measured: the model has no tokenizer")
    elif asked.labelled:
        right = accuracy(model, tokenizer, asked.labelled, length=asked.questions.length)
        found["accuracy"] = asdict(right)
    elif predicts(model):
        read = all_losses(model, asked.rows)
        found["perplexity"] = asdict(read.perplexity)
    else:
        read, _ = embed(model, asked.rows)
    if asked.questions.harness is not None:
        scores = asked.questions.harness.run(model, tokenizer, limit=asked.questions.limit)
        found["tasks"] = [asdict(score) for score in scores]
    return found, read


def _time(checkpoint: Checkpoint, dense: Checkpoint | None, asked: _Asked, found: dict[str, Any]) -> None:
    """Add `speed`, and `onnx` where there is a graph, to the figures of both models."""
    prompt, device = asked.rows[0]["input_ids"][:1], asked.questions.device
    graphs = [one.folder / "onnx" / FILE for one in (dense, checkpoint) if one is not None]
    model = load_model(checkpoint, device)
    if dense is None:
        found["speed"] = asdict(speed(model, prompt))
        if graphs[0].is_file():
            found["onnx"] = asdict(ort_speed(graphs[0], prompt.numpy()))
        return
    before, after, changes = speeds(load_model(dense, device), model, prompt)
    found["against"]["speed"], found["speed"] = asdict(before), asdict(after)
    if graphs[0].is_file() and graphs[1].is_file():
        timed = ort_speeds(graphs[0], graphs[1], prompt.numpy(), Budget())
        assert timed is not None  # a budget without end holds it
        found["against"]["onnx"], found["onnx"] = asdict(timed.before), asdict(timed.after)
        changes |= timed.changes
    elif graphs[1].is_file():
        found["onnx"] = asdict(ort_speed(graphs[1], prompt.numpy()))
    found["changes"] |= {name: asdict(change) for name, change in changes.items()}


def _cost(checkpoint: Checkpoint, length: int, notes: list[str]) -> dict[str, int]:
    measured = size(checkpoint.folder)
    found = {"parameters": measured.parameters, "bytes": measured.bytes}
    try:
        found["flops"] = Source.of(checkpoint).graph.flops(sequence=length)
        found["flops_length"] = length
    except ModelError as error:
        notes.append(f"FLOPs not counted: {error}")
    return found
