"""What a kind of step is: a verb of the recipe, its settings, and what it makes of a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel

from compress.execution.context import Context, Needs
from compress.execution.run import Options
from compress.recipe.schema import Recipe
from compress.surgery.edit import Edit

Decision = Mapping[str, Any]
"""What a step decided, as plain values for the plan: enough to make the same edit again."""


class StepKind(ABC):
    """A step as a recipe asks for it; registered with `compress.registry.steps`.

    `settings` is the pydantic model of its keys, one of which is `verb`. `subjects` are the values of that key which
    make it a step of this kind; a kind without any takes what no other kind of its verb does. `alone` and `last` say,
    where they are not empty, why such a step must be the only one of its recipe, or the last.
    """

    settings: ClassVar[type[BaseModel]]
    verb: ClassVar[str]
    subjects: ClassVar[tuple[str, ...]] = ()
    alone: ClassVar[str] = ""
    last: ClassVar[str] = ""
    makes_model: ClassVar[bool] = True
    unfit: ClassVar[str] = "what it writes is no model"
    """Of a kind that is no ModelStep: why it does not do where one is asked for."""

    def __init__(self, step: Any) -> None:
        self.step = step

    @classmethod
    def title(cls) -> str:
        """As recipes write it: `prune: delta`."""
        return ": ".join((cls.verb, *cls.subjects[:1]))

    @property
    def inputs(self) -> list[str]:
        """Other models that the step reads, as the recipe names them: the output may not lie in them."""
        return []


class ModelStep(StepKind):
    """A step that makes a smaller model of a model.

    `gather` is called in every process of a distributed run, `decide` in the first alone, whose decision `edit` gets in
    each. A plan holds the decision; with one `given`, `decide` is left out. `writing` is the stage in which the edit is
    produced. A kind that is not `replayable` makes no plan that `compress apply` executes. `unforeseen` says why a
    config alone may not be enough to plan the step, and what is.
    """

    writing: ClassVar[str] = "write"
    replayable: ClassVar[bool] = True
    unforeseen: ClassVar[str] = "it decides by weights or text"

    def needs(self, context: Context) -> Needs:
        """The statistics that `decide` and `edit` read, of the model as the step finds it.

        Recipes that are compared gather theirs together.
        """
        return Needs()

    def calibrates(self, *, given: bool) -> bool:
        """Whether `gather` runs the model, with a decision `given` or without."""
        return False

    def gather(self, context: Context, given: Decision | None) -> Any:
        """Whatever `decide` and `edit` read; what `needs` asks for, unless a kind gathers otherwise."""
        return context.collect(self.needs(context)) if given is None else {}

    @abstractmethod
    def decide(self, context: Context, gathered: Any) -> Decision:
        """What is to be done. Raises BudgetError where the budget cannot be met."""

    def guesses(self, context: Context) -> list[Decision]:
        """For a plan from a config alone, where `decide` asks for weights or text: decisions as far apart as these can
        make them. What they agree in is known. None where there are no such."""
        return []

    @staticmethod
    def counted(decision: Decision) -> Decision:
        """What of a guess does not depend on which units it takes."""
        return decision

    @abstractmethod
    def edit(self, context: Context, decision: Decision, gathered: Any) -> Edit:
        """The model that the decision makes. Raises InputError for the decision on another model."""

    @staticmethod
    def rows(decision: Decision) -> dict[str, str]:
        """What a table says of a decision: label → value."""
        return {}

    def stages(self, *, given: bool, written: bool) -> list[str]:
        """The stages that a run goes through, with a decision `given` or without, whose result is `written` or not."""
        return [
            *(["calibrate"] if self.calibrates(given=given) else []),
            "decide",
            *([self.writing, "verify"] if written else []),
        ]


class ArtifactStep(StepKind):
    """A step whose result is no model, and which therefore stands alone. `unplanned` says why it makes no plan."""

    alone = "what it writes is no model; move the other steps elsewhere"
    makes_model = False
    unplanned: ClassVar[str] = "it makes no plan; run the recipe"

    @abstractmethod
    def write(self, recipe: Recipe, model_in: str | Path, model_out: Path, options: Options) -> Any:
        """Write the result into the new folder `model_out`; returns what `show` takes."""

    @abstractmethod
    def show(self, made: Any, model_out: Path) -> tuple[Any, dict[str, Any], str]:
        """Of what `write` returned: a table, the same as data, and the last line for the user."""
