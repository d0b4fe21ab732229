"""One model measured on demand: quality, speed, memory and size, alone or beside the dense one."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from compress.checkpoint.open import Checkpoint
from compress.console import say
from compress.data.tokens import load_tokenizer
from compress.errors import ModelError
from compress.evaluate.budget import Budget
from compress.evaluate.harness import Harness
from compress.evaluate.load import data_of, held_out, load_model, meaningless, named
from compress.evaluate.ort_latency import ort_speed, ort_speeds
from compress.evaluate.read import read_all
from compress.evaluate.size import peak_memory, size
from compress.evaluate.speed import speed, speeds
from compress.inputs.batch import Batch, first
from compress.inputs.choose import inputs_of
from compress.inputs.kind import Inputs
from compress.metrics.kind import Metric, Quality, Scale
from compress.model.build import empty_model, load_config, model_class
from compress.model.model import Model
from compress.onnx import FILE
from compress.tasks.choose import task_of


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
    """The questions in the form in which each model is asked them: `metric` is None where quality is not measured."""

    questions: Questions
    inputs: Inputs
    metric: Metric[Any] | None
    rows: list[Batch]
    text: str | None = None

    @property
    def length(self) -> int:
        """Positions of a sample: tokens, of a text."""
        return self.inputs.length(self.rows[0])


def evaluate_folder(checkpoint: Checkpoint, questions: Questions, dense: Checkpoint | None = None) -> dict[str, Any]:
    """All figures of a model as data: `parameters`, `bytes`, `flops` (of `flops_length` tokens), `peak_memory` of this
    process, `quality` (a list of `compress.metrics.kind.Figure`) with the record of its metric under that one's name,
    and those of speed, speed of its ONNX graph (`onnx`) and tasks that it has; `text` is what quality is of, `notes`
    say what it has not.

    `against` holds the same of `dense`, which is asked the same questions after the first model has been let go;
    `changes` say how sure the differences are. Both are timed in turns, side by side in memory. Raises InputError for
    unusable text or labels, before any weight is read.
    """
    asked = _prepare(checkpoint, questions)
    found, reading = _ask(checkpoint, asked)
    beside = None
    if dense is not None:
        found["against"], beside = _ask(dense, replace(asked, rows=_rows_of(dense, checkpoint, asked)))
        found["changes"] = {}
    if asked.metric is not None:
        _add_quality(found, asked.metric.quality(reading, beside))
        if dense is None and asked.metric.relative:
            found["notes"].append(
                "the model's quality is how like the dense model's its output is: pass --against DENSE"
            )
    if questions.timed:
        _time(checkpoint, dense, asked, found)
    found["peak_memory"] = peak_memory()
    return found


def _add_quality(found: dict[str, Any], quality: Quality) -> None:
    """The figures of both models and their changes."""
    found |= quality.record
    found["quality"] = [asdict(figure) for figure in quality.figures]
    if "against" in found:
        own = [one for one in quality.figures if one.scale is not Scale.SIMILARITY and one.dense is not None]
        found["against"] |= quality.dense_record
        found["against"]["quality"] = [asdict(replace(one, value=one.dense, dense=None)) for one in own]
        found["changes"] = {name: asdict(change) for name, change in quality.changes.items()}


def _prepare(checkpoint: Checkpoint, questions: Questions) -> _Asked:
    config = load_config(checkpoint)
    model = empty_model(config, model_class(config, checkpoint))
    inputs, task = inputs_of(model, config), task_of(model)
    amount: Any = {"samples": questions.samples, "length": questions.length}
    if task.labelled:
        rows = inputs.labelled(Path(questions.data) if questions.data is not None else None, checkpoint, **amount)
        return _Asked(questions, inputs, task.metric(rows[0]), rows)
    data = data_of(inputs, questions.data)
    rows = held_out(inputs, checkpoint, data=data, seed=questions.seed, **amount)
    if not inputs.meaningful(checkpoint):
        return _Asked(questions, inputs, None, rows)
    return _Asked(questions, inputs, task.metric(rows[0]), rows, named(data))


def _rows_of(dense: Checkpoint, checkpoint: Checkpoint, asked: _Asked) -> list[Batch]:
    """The same samples as `dense` reads them."""
    if not task_of(asked.inputs.model).labelled:
        return asked.inputs.reread(asked.rows, checkpoint, dense)
    questions = asked.questions
    file = Path(questions.data) if questions.data is not None else None
    return asked.inputs.labelled(file, dense, samples=questions.samples, length=questions.length)


def _ask(checkpoint: Checkpoint, asked: _Asked) -> tuple[dict[str, Any], Any]:
    """The figures of one model, and what it made of the samples."""
    found: dict[str, Any] = {"model": str(checkpoint.folder), "notes": [], "text": asked.text}
    found |= _cost(checkpoint, asked, found["notes"])
    reading = None
    say(f"evaluating {checkpoint.folder}")
    model = load_model(checkpoint, asked.questions.device)
    found["architecture"] = type(model).__name__
    if asked.metric is None:
        found["notes"].append(meaningless(asked.inputs))
    else:
        reading = read_all(model, asked.metric, asked.rows)
    if asked.questions.harness is not None:
        scores = asked.questions.harness.run(model, load_tokenizer(checkpoint), limit=asked.questions.limit)
        found["tasks"] = [asdict(score) for score in scores]
    return found, reading


def _time(checkpoint: Checkpoint, dense: Checkpoint | None, asked: _Asked, found: dict[str, Any]) -> None:
    """Add `speed`, and `onnx` where there is a graph, to the figures of both models."""
    sample, inputs, device = first(asked.rows[0], 1), asked.inputs, asked.questions.device
    graphs = [one.folder / "onnx" / FILE for one in (dense, checkpoint) if one is not None]
    model = load_model(checkpoint, device)
    if dense is None:
        found["speed"] = asdict(speed(model, inputs, sample))
        if graphs[0].is_file():
            found["onnx"] = asdict(ort_speed(graphs[0], inputs, sample))
        return
    if task_of(inputs.model).labelled:
        samples = first(_rows_of(dense, checkpoint, asked)[0], 1), sample
    else:
        samples = inputs.reread([sample], checkpoint, dense)[0], sample
    before, after, changes = speeds(load_model(dense, device), model, inputs, samples)
    found["against"]["speed"], found["speed"] = asdict(before), asdict(after)
    if graphs[0].is_file() and graphs[1].is_file():
        timed = ort_speeds(graphs[0], graphs[1], inputs, samples, Budget())
        assert timed is not None  # a budget without end holds it
        found["against"]["onnx"], found["onnx"] = asdict(timed.before), asdict(timed.after)
        changes |= timed.changes
    elif graphs[1].is_file():
        found["onnx"] = asdict(ort_speed(graphs[1], inputs, sample))
    found["changes"] |= {name: asdict(change) for name, change in changes.items()}


def _cost(checkpoint: Checkpoint, asked: _Asked, notes: list[str]) -> dict[str, int]:
    measured = size(checkpoint.folder)
    found = {"parameters": measured.parameters, "bytes": measured.bytes}
    try:
        source = Model.of(checkpoint)
        found["flops"] = source.graph.flops(sequence=asked.length)
        if source.inputs.free_length:
            found["flops_length"] = asked.length
    except ModelError as error:
        notes.append(f"FLOPs not counted: {error}")
    return found
