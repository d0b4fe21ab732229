"""Benchmark tasks by EleutherAI's lm-evaluation-harness (Gao et al., https://github.com/EleutherAI/lm-evaluation-harness).

Two tasks ship and need no network: `docs_order` (multiple choice) and `docs_word` (generation).
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.console import say
from compress.errors import InputError
from compress.registry import did_you_mean

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

SHIPPED = Path(__file__).parent / "tasks"


@dataclass(frozen=True)
class Score:
    """One task's `metric` over `samples` questions; `error` is its standard error, None where it has none."""

    task: str
    metric: str
    value: float
    error: float | None
    samples: int
    higher_is_better: bool


class Harness:
    """The tasks `names`, among those that ship, those of the folder `own`, and all that lm-eval knows.

    Made before torch is imported, so that a wrong name costs little. Raises InputError when lm-eval is not installed,
    `own` is no folder, or a name is unknown.
    """

    def __init__(self, names: Sequence[str], own: Path | None = None) -> None:
        try:
            from lm_eval.tasks import TaskManager
        except ImportError:
            raise InputError("--tasks: needs lm-eval; pip install 'compress-models[harness]'") from None
        if own is not None and not own.is_dir():
            raise InputError(f"--task-folder {own}: is no folder")
        paths: list[str | Path] = [str(folder.absolute()) for folder in (SHIPPED, own) if folder is not None]
        self.names = list(dict.fromkeys(names))
        self._tasks = TaskManager(include_path=paths, include_defaults=False)  # the others are thousands of files
        if not set(self.names) <= set(self._tasks.all_tasks):
            here = self._tasks.all_tasks
            for name in self.names:
                if name not in here and not _mentioned(name):
                    raise _unknown(name, here, here)
            self._tasks = TaskManager(include_path=paths)
            for name in self.names:
                if name not in self._tasks.all_tasks:
                    raise _unknown(name, here, self._tasks.all_tasks)

    def run(
        self, model: nn.Module, tokenizer: PreTrainedTokenizerBase | None, *, batch: int = 8, limit: int | None = None
    ) -> list[Score]:
        """Every metric of every task, without examples in the prompt; `limit` questions of each at most.

        Raises InputError for a model that generates no text, and when a task's data cannot be had.
        """
        if tokenizer is None or not (hasattr(model, "can_generate") and model.can_generate()):  # pyright: ignore
            raise InputError(f"--tasks: {type(model).__name__} generates no text, so it cannot answer {self.names[0]}")
        import lm_eval
        from lm_eval.models.huggingface import HFLM

        say(f"running {', '.join(self.names)}")
        with _hushed():
            run: Any = lm_eval.simple_evaluate
            wrapped: Any = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch, device=str(model.device))  # pyright: ignore
            try:
                found = run(
                    model=wrapped, tasks=list(self.names), task_manager=self._tasks, limit=limit, log_samples=False
                )
            except OSError as error:  # of datasets and huggingface_hub: no network, no such data
                reason = str(error).strip().partition("\n")[0]
                raise InputError(f"--tasks {','.join(self.names)}: cannot be run: {reason}") from error
        return [score for task, results in found["results"].items() for score in _scores(task, results, found)]


def _scores(task: str, results: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[Score]:
    """`{"acc,none": 0.7, "acc_stderr,none": 0.03}` as scores."""
    better = found["higher_is_better"].get(task, {})
    samples = found["n-samples"].get(task, {}).get("effective", results.get("sample_len", 0))
    for name, value in results.items():
        metric, comma, filtered = name.partition(",")
        if comma and not metric.endswith("_stderr"):
            error = results.get(f"{metric}_stderr,{filtered}")
            error = float(error) if isinstance(error, int | float) else None
            yield Score(task, metric, float(value), error, samples, bool(better.get(metric, True)))


def _mentioned(name: str) -> bool:
    """Whether any file of lm-eval's tasks has the name in it: in a second, where reading all of them takes many."""
    found = find_spec("lm_eval")
    root = Path(found.origin).parent / "tasks" if found is not None and found.origin else None
    files = (Path(place, file) for place, _, files in os.walk(root or "") for file in files)
    return any(name.encode() in file.read_bytes() for file in files if file.suffix != ".py")


def _unknown(name: str, here: Sequence[str], known: Sequence[str]) -> InputError:
    near = did_you_mean(name, here) or did_you_mean(name, known)
    return InputError(f"--tasks: no task {name!r}{near} (here are {', '.join(here)}; all others: `lm-eval ls tasks`)")


@contextmanager
def _hushed() -> Iterator[None]:
    """lm-eval's warnings and bars are not the user's to mend, nor what git says when it looks for its own version; what
    it raises is shown."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)  # git is another process
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
        logger.setLevel(level)
