"""A PyTorch module in memory, pruned: no config, no folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from torch import Tensor, nn

from compress.api.pruning import read
from compress.api.rounds import in_rounds
from compress.calibrate import distributed
from compress.checkpoint.held import HeldCheckpoint
from compress.checkpoint.write import new_folder
from compress.errors import InputError
from compress.evaluate.before_after import Evaluation
from compress.execution.document import Plan
from compress.execution.run import Options, Run
from compress.inputs.arguments import Arguments
from compress.inputs.given import Given
from compress.model.changes import Changes
from compress.model.model import Model
from compress.model.skeleton import held_module
from compress.model.stored import StoredModule
from compress.recipe.read import parse_recipe
from compress.recipe.schema import Recipe
from compress.recipe.source import to_yaml
from compress.report import Report
from compress.report.of_run import report_of
from compress.steps.execute import execute
from compress.steps.kinds import check_plan, model_steps
from compress.surgery.rebuild import InMemory, check_forward, module_of

Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True)
class Pruned(Generic[Net]):
    """A smaller `module`, of the class of the one that was given. `plan` has every decision, `report` what report.json
    holds; `changes`, step by step, are what makes the module of the dense one, its weights aside."""

    module: Net
    plan: Plan
    report: Report
    changes: tuple[Changes, ...]
    _arguments: Arguments = field(repr=False)

    def save(
        self,
        folder: str | Path,
        *,
        build: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        force: bool = False,
    ) -> None:
        """Write the module as it is now, trained further or not, into a new folder that `compress.load` opens.

            small.save("small-net", build="my_package.nets:make_net", arguments={"depth": 12})
            compress.load("small-net", build="my_package.nets:make_net", arguments={"depth": 12})

        It gets model.safetensors, module.json (what makes the smaller module of the dense one), what the module answers
        to its example, plan.json, recipe.yaml and report.json; nothing is pickled, and no code is stored.

        Args:
            folder: The folder to write; it appears when all is written.
            build: What makes the dense module, as a name for `compress.load` to mention: `package.module:function`,
                `timm:NAME` or `torchvision:NAME`.
            arguments: What it is called with: plain values.
            force: Replace an earlier folder of ours.

        Raises:
            InputError: The folder cannot be written, or the arguments cannot be stored.
        """
        with new_folder(Path(folder), force=force) as place:
            report = {**self.report, "load": self.report["load"].format(folder=str(folder))}
            self.write(place, report, build, arguments)

    def write(self, place: Path, report: Any, build: str | None, arguments: Mapping[str, Any] | None) -> None:
        """Write the files of `save` into an existing folder, with this `report`."""
        stored = StoredModule(type(self.module).__name__, self.changes, build, arguments or {})
        stored.write(place, self.module, self._arguments.call(self._arguments.example, None))
        (place / "plan.json").write_text(self.plan.dump(), encoding="utf-8")
        (place / "recipe.yaml").write_text(self.plan.recipe, encoding="utf-8")
        (place / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def prune(
    module: Net,
    example_inputs: Any,
    recipe: str | Path | Recipe | Plan | Sequence[Mapping[str, Any]],
    *,
    data: Iterable[Any] | None = None,
    loss: Callable[[Any, Any], Tensor] | None = None,
    train: Callable[[Net], object] | None = None,
    rounds: int = 1,
    set: Sequence[str] = (),
    device: str = "cpu",
) -> Pruned[Net]:
    """Prune a module in memory; it stays as it is, the smaller one is new.

        small = compress.prune(net, torch.randn(2, 3, 32, 32), "magnitude-20").module

    Args:
        module: Any nn.Module whose forward is Python; weights of any dtype, on any device.
        example_inputs: What its forward is called with: a tensor, a tuple of arguments or a dict of them. The first
            dimension of the tensors is the sample. The pruned module is compared on them with the given one whose
            removed parts are masked.
        recipe: The name of a recipe that ships, the path of a YAML file, a recipe that was read, or its steps:
            `[{"prune": "channels", "by": "magnitude", "remove": "30%"}]`. Or the plan of such a module: then what it
            decided is done again.
        data: Batches for recipes that read data, each of the form of `example_inputs`, or a pair of such and a target;
            they take the place of what the recipe names. The first `calibrate.samples` are run.
        loss: For criteria that read gradients: `(output, target)` → the mean loss over the samples.
        train: Called with the smaller module after each round, to train it in place.
        rounds: In how many rounds the recipe's budget is spent, each on what training made of the one before.
        set: Fields of the recipe to change, as `compress.run` takes them.
        device: A torch device to compute on.

    Returns:
        The smaller module, the plan and the report.

    Raises:
        InputError: The recipe, the inputs or the data are not usable as given.
        ModelError: The module is not understood, or no integers of its own make it run at its new sizes.
        BudgetError: The budget cannot be met.
        VerifyError: The smaller module does not compute what the given one does with the removed parts masked.
    """
    plan = recipe if isinstance(recipe, Plan) else None
    recipe = _usable(_read(recipe, set), rounds)
    given = Given(Arguments.of(module, example_inputs), [] if data is None else data, loss)
    return prune_given(module, given, recipe, plan, train=train, rounds=rounds, device=device)


def prune_given(
    module: Net,
    given: Given,
    recipe: Recipe,
    plan: Plan | None = None,
    *,
    title: str | None = None,
    train: Callable[[Net], object] | None = None,
    rounds: int = 1,
    device: str = "cpu",
) -> Pruned[Net]:
    """`prune` of a module that reads what is `given`, called `title` in the report; raises what that does."""
    checkpoint = held_module(module, given)
    if plan is not None:
        check_plan(recipe, plan)
        if plan.digest != checkpoint.digest:
            raise InputError(f"the plan: was made for other weights of a {plan.model}; plan anew")
    check_forward(checkpoint, module, "given")
    recipe, count = in_rounds(recipe, rounds), len(recipe.steps)
    options = Options(device=device, evaluate=False)
    run = Run(recipe, title or type(module).__name__, options, Model.of(checkpoint), given=plan)
    changes: list[Changes] = []
    for number in range(rounds):
        if number:
            run.source = Model.of(checkpoint)
        checkpoint = _steps(run, number * count, count, changes)
        module = cast(Net, module_of(checkpoint, module))
        check_forward(checkpoint, module, "pruned")
        if train is not None:
            train(module)
            checkpoint = held_module(module, given)
    made = run.plan()
    report = report_of(run, made, Evaluation(), Path("{folder}"))
    return Pruned(module, made, report, tuple(changes), given.arguments)


def tried(source: Model, like: Net, recipe: Recipe, device: str = "cpu") -> Net:
    """What a recipe makes of the module `like`, which was traced as `source`: to be looked at, as nothing is reported
    of it. Each step is verified."""
    recipe = _usable(recipe, 1)
    run = Run(recipe, type(like).__name__, Options(device=device, evaluate=False), source)
    return cast(Net, module_of(_steps(run, 0, len(recipe.steps), []), like))


def _steps(run: Run, first: int, count: int, changes: list[Changes]) -> HeldCheckpoint:
    """So many steps of the run's recipe, each on what the one before it left; adds to the `changes`."""
    checkpoint = cast(HeldCheckpoint, run.source.checkpoint)
    for number in range(first, first + count):
        if number > first:
            run.source = Model.of(checkpoint)
        place = InMemory()
        execute(run, number, place)
        changes.append(place.changes)
        checkpoint = cast(HeldCheckpoint, place.opened(run.source).checkpoint)
    return checkpoint


def _read(recipe: Any, changes: Sequence[str]) -> Recipe:
    """A recipe in any of its forms."""
    if isinstance(recipe, Plan):
        return parse_recipe(recipe.recipe, name="the plan's recipe", overrides=changes)
    if isinstance(recipe, str | Path | Recipe):
        return read(recipe, changes)
    return parse_recipe(to_yaml({"steps": [dict(step) for step in recipe]}), name="recipe", overrides=changes)


def _usable(recipe: Recipe, rounds: int) -> Recipe:
    """The recipe without the data that it names. Raises InputError for what a module in memory cannot do."""
    if rounds < 1:
        raise InputError(f"rounds: {rounds}; at least 1")
    if (processes := distributed.launched()) > 1:
        raise InputError(f"compress.prune runs in one process, and this is one of {processes}; prune before they start")
    if recipe.export is not None:
        raise InputError("export: a module in memory is exported by torch.export or torch.onnx; leave it out")
    model_steps(recipe)
    return recipe.model_copy(update={"calibrate": recipe.calibrate.model_copy(update={"data": None})})
