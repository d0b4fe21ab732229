"""Benchmark tasks by EleutherAI's lm-evaluation-harness (Gao et al., https://github.com/EleutherAI/lm-evaluation-harness).

Two tasks ship and need no network: `docs_order` (multiple choice) and `docs_word` (generation).
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from compress.console import say
from compress.errors import InputError
from compress.registry import did_you_mean

if TYPE_CHECKING:
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

    Made before the model is loaded, so that a wrong name costs nothing. Raises InputError when lm-eval is not
    installed, `own` is no folder, or a name is unknown.
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
            self._tasks = TaskManager(include_path=paths)
            for name in self.names:
                if name not in self._tasks.all_tasks:
                    near = did_you_mean(name, here) or did_you_mean(name, self._tasks.all_tasks)
                    listed = f"here are {', '.join(here)}; all others: `lm-eval ls tasks`"
                    raise InputError(f"--tasks: no task {name!r}{near} ({listed})")

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


@contextmanager
def _hushed() -> Iterator[None]:
    """lm-eval's warnings and bars are not the user's to mend; what it raises is shown."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
