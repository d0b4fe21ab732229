"""One run in progress: what it was asked for, and what its steps leave behind."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from compress.checkpoint.open import Checkpoint, open_checkpoint
from compress.errors import InputError
from compress.evaluate.before_after import Evaluator
from compress.execution.baseline import Original
from compress.execution.context import Context
from compress.execution.document import Plan, PlannedStep
from compress.execution.history import Tally
from compress.execution.stages import Stages
from compress.graph.families import Graph
from compress.model.model import Model
from compress.recipe.schema import Recipe
from compress.runtime.config import runtime_rules

USABLE = ("cpu", "cuda", "mps", "xpu")
"""Kinds of devices that give results."""


@dataclass(frozen=True)
class Options:
    """What the command line may say beside the recipe. `device` is a torch device or `auto`; `include` are patterns of
    files beside the weights that are to travel though no model is known to have them; `base` is what a LoRA adapter is
    merged into, where its config does not name it; with `resume` an interrupted run into the same folder goes on behind
    its last finished step.

    `evaluate`: `quick` measures for about 20 s, or half as long as pruning took where that is longer; `full` on all
    samples; None or False not at all.
    """

    device: str = "auto"
    force: bool = False
    evaluate: Literal["quick", "full", False] | None = "quick"
    latency: bool = True
    trust_remote_code: bool = False
    allow_pickle: bool = False
    revision: str | None = None
    include: tuple[str, ...] = ()
    base: str | None = None
    resume: bool = False

    @property
    def where(self) -> str:
        """The device to compute on."""
        if self.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        try:
            if torch.device(self.device).type not in USABLE:
                raise InputError(
                    f"--device {self.device}: nothing is computed there; take auto or one of {', '.join(USABLE)}"
                )
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"--device {self.device}: not usable here ({reason}); take auto or cpu") from None
        return self.device


def open_input(model: str | Path, options: Options) -> Checkpoint:
    """The model that the command line names, opened as it says. Raises what `open_checkpoint` does."""
    return open_checkpoint(
        model,
        revision=options.revision,
        trust_remote_code=options.trust_remote_code,
        allow_pickle=options.allow_pickle,
        include=options.include,
        base=options.base,
    )


def refuse_rules(checkpoint: Checkpoint, model: str) -> None:
    """Raises InputError for a `model` whose config has runtime rules."""
    if rules := runtime_rules(checkpoint.config, str(checkpoint.folder / "config.json")):
        kinds = ", ".join(asked.kind for asked in rules)
        raise InputError(
            f"{model}/config.json: has runtime rules ({kinds}) that hold for these very weights; prune the model that "
            f"it was made from"
        )


@dataclass(frozen=True)
class Shared:
    """What several recipes on one model have in common: all that is known of it unread, its evaluation, and the
    sequence length in `tokens` that FLOPs are counted at."""

    source: Model
    evaluator: Evaluator | None
    tokens: int


@dataclass
class Run:
    """One run in progress."""

    recipe: Recipe
    model: str
    options: Options
    source: Model
    given: Plan | None = None
    stages: Stages = field(default_factory=Stages)
    tokens: int | None = None
    steps: list[PlannedStep] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.first = self.source
        self.original = Original(self.source.graph, self.options.where, self.recipe.calibrate.length)
        self.tally = Tally(self.source.graph)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        with self.stages(name):
            yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def size(self, graph: Graph, stored: int, kept: Mapping[str, np.ndarray] | None = None) -> dict[str, int]:
        """`params`, `flops` and `bytes` of what is left, as a plan has them, with `flops_length`, the tokens that the
        FLOPs are of, where samples may be of any length."""
        tokens = self.tokens or self.original.tokens
        flops = graph.flops(kept, sequence=tokens)
        of = {"flops_length": tokens} if self.first.inputs.free_length else {}
        return {"params": graph.parameters(kept), "flops": flops, "bytes": stored, **of}

    def open(self, folder: Path | str) -> None:
        """Go on from what a step wrote."""
        trust, include = self.options.trust_remote_code, self.options.include
        self.source = Model.of(open_checkpoint(folder, trust_remote_code=trust, include=include))

    @property
    def context(self) -> Context:
        """What the next step may ask for."""
        return Context(self.source, self.first, self.original, self.recipe, self.options.where)

    def plan(self) -> Plan:
        """All decisions so far."""
        return Plan(self.model, self.first.checkpoint.digest, self.recipe.dump(), self.steps)
