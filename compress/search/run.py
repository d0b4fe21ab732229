"""From a goal to a written model: pace, candidates, trials, and the recipe that came out best."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from compress.checkpoint.write import check_target
from compress.console import human_seconds, say, warn
from compress.errors import BudgetError
from compress.execution.baseline import Original
from compress.execution.context import Context
from compress.execution.run import Options, Shared, open_input, refuse_rules
from compress.model.model import Model
from compress.pipeline import run
from compress.recipe.prune import Widths
from compress.recipe.read import read_recipe
from compress.recipe.schema import Recipe
from compress.report import Report
from compress.search.candidates import Candidate, first, rounds
from compress.search.choose import choose
from compress.search.goal import Goal
from compress.search.pace import ROUNDS, Pace, pace


def auto(
    model_in: str | Path,
    model_out: str | Path,
    goal: Goal,
    options: Options | None = None,
    *,
    minutes: float | None = None,
    widths: Widths = "uniform",
    data: str | None = None,
) -> Report:
    """Make the model `model_in` as small as the `goal` says, by the best recipe that is found in `minutes` or so; what
    comes after is the cut, its verification and the evaluation.

    Candidates (kinds of units, criterion, widths, ridge) meet the same budget; each is decided by measured allocation
    and tried out on samples of its own. The best one's recipe is run, and lies in the new folder `model_out`. It is
    calibrated on `data`, by default what suits the model.

    Raises InputError for a time too short for one pass, BudgetError where no candidate can meet the goal, and what
    `compress.pipeline.run` does.
    """
    options = options or Options()
    check_target(Path(model_out), options.force, [model_in])
    checkpoint = open_input(model_in, options)
    refuse_rules(checkpoint, str(model_in))
    source = Model.of(checkpoint)
    measure, share = goal.kept(source)
    ways = first(source)
    if not ways:
        raise BudgetError(
            f"{model_in}: no heads, channels or experts are free to be removed; `compress inspect` says why"
        )
    longest = source.inputs.longest(checkpoint)

    def written(candidate: Candidate, how: Pace | None) -> Recipe:
        return _recipe(candidate, measure, share, data, how, longest).on(source.inputs.data)

    usual, device = written(ways[0], None), options.where
    how = pace(Context(source, source, Original(source.graph, device), usual, device), minutes, len(ways), widths)
    said = f"{how.rounds} rounds of trials" if how.rounds else "no time for trials"
    say(f"{how.samples} samples, {said}; about {human_seconds(how.seconds)} in all")
    if widths != "uniform" and how.rounds < ROUNDS:
        warn("no time to try widths by layer: all layers keep the same; give it more --minutes")
    if how.rounds:
        near = rounds(source, widths)[: how.rounds - 1]
        tried = choose(source, ways, near, partial(written, how=how), device, how.tried)
        recipe, best = tried[0].recipe, tried[0].candidate
        about = f"chosen by trial among {len(tried)}: {best}; it moved the output by {tried[0].divergence:.3g}"
    else:
        recipe, about = written(ways[0], how), f"the usual choice, without trials: {ways[0]}"
    say(about)
    recipe = recipe.model_copy(update={"about": about})
    return run(recipe, model_in, model_out, options, Shared(source, None, recipe.calibrate.length))


def _recipe(
    candidate: Candidate,
    measure: str,
    share: float,
    data: str | None,
    how: Pace | None,
    longest: int | None,
) -> Recipe:
    """The recipe `auto` as this candidate has it."""
    given = [*candidate.overrides, "steps.0.remove=null", f"steps.0.keep={{{measure}: {100 * share:.6g}%}}"]
    if data is not None:
        given.append(f"calibrate.data={data}")
    if longest is not None and longest < read_recipe("auto").calibrate.length:
        given.append(f"calibrate.length={longest}")
    if how is not None:
        given += [f"calibrate.samples={how.samples}", f"calibrate.gradients={how.gradients}"]
        given.append(f"steps.0.allocate={{measured: {{samples: {how.tried}}}}}")
    return read_recipe("auto", given)
