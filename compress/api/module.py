"""A PyTorch module in memory, pruned: no config, no folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from torch import Tensor, nn

from compress.api.pruning import read
from compress.checkpoint.held import HeldCheckpoint
from compress.errors import InputError
from compress.evaluate.before_after import Evaluation
from compress.execution.document import Plan
from compress.execution.run import Options, Run
from compress.inputs.arguments import Arguments
from compress.inputs.given import Given
from compress.model.changes import Changes
from compress.model.model import Model
from compress.model.skeleton import held_module
from compress.recipe.schema import Recipe
from compress.report import Report
from compress.report.of_run import report_of
from compress.steps.execute import execute
from compress.steps.kinds import model_steps
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


def prune(
    module: Net,
    example_inputs: Any,
    recipe: str | Path | Recipe,
    *,
    data: Iterable[Any] | None = None,
    loss: Callable[[Any, Any], Tensor] | None = None,
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
        recipe: The name of a recipe that ships, the path of a YAML file, or a recipe that was read.
        data: Batches for recipes that read data, each of the form of `example_inputs`, or a pair of such and a target;
            they take the place of what the recipe names. The first `calibrate.samples` are run.
        loss: For criteria that read gradients: `(output, target)` → the mean loss over the samples.
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
    asked = read(recipe, set)
    arguments = Arguments.of(module, example_inputs)
    given = Given(arguments, [] if data is None else data, loss)
    dense = held_module(module, given)
    check_forward(dense, module, "given")
    checkpoint, report, plan, changes = _run(dense, asked, device)
    made = module_of(checkpoint, module)
    check_forward(checkpoint, made, "pruned")
    return Pruned(cast(Net, made), plan, report, changes)


def _run(
    checkpoint: HeldCheckpoint, recipe: Recipe, device: str
) -> tuple[HeldCheckpoint, Report, Plan, tuple[Changes, ...]]:
    """Every step of the recipe, each on what the one before it left."""
    if recipe.export is not None:
        raise InputError("export: a module in memory is exported by torch.export or torch.onnx; leave it out")
    model_steps(recipe)
    recipe = recipe.model_copy(update={"calibrate": recipe.calibrate.model_copy(update={"data": None})})
    name = str(checkpoint.folder)
    run = Run(recipe, name, Options(device=device, evaluate=False), Model.of(checkpoint))
    changes = []
    for number in range(len(recipe.steps)):
        place = InMemory()
        execute(run, number, place)
        changes.append(place.changes)
        checkpoint = cast(HeldCheckpoint, place.opened(run.source).checkpoint)
        if number + 1 < len(recipe.steps):
            run.source = Model.of(checkpoint)
    made = run.plan()
    return checkpoint, report_of(run, made, Evaluation(), Path(name)), made, tuple(changes)
