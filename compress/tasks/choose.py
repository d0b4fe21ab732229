"""Which task a model has."""

from __future__ import annotations

from typing import Any

from torch import nn

from compress.errors import ModelError
from compress.inputs.given import declared
from compress.registry import tasks
from compress.tasks.given import GivenTask
from compress.tasks.kind import Task


def task_of(model: nn.Module, config: Any | None = None) -> Task:
    """What `model` is for: what was declared of it, else by the registered task that fits it; `config` is the model's
    own by default.

    Tasks of other packages are asked before this one's, so that they can take over models that it would misjudge, and
    general ones last; each in the order of their names. Raises ModelError where none fits.
    """
    if declared(model) is not None:
        return GivenTask(model, None)
    config = getattr(model, "config", None) if config is None else config
    entries = [tasks.get(name) for name in tasks.names()]

    def late(entry: Any) -> tuple[bool, bool]:
        return entry.target.general, entry.target.__module__.startswith(f"{tasks.package}.")

    for entry in sorted(entries, key=late):
        kind: Any = entry.target
        if kind.fits(model, config):
            return kind(model, config)
    raise ModelError(
        f"{type(model).__name__} has none of the tasks {', '.join(tasks.names())}; register one of your own "
        "(compress.registry.tasks)"
    )
