"""A goal in place of a recipe."""

from __future__ import annotations

from pathlib import Path

from compress.api.options import Options
from compress.recipe.prune import Widths
from compress.report import Report
from compress.search.goal import Goal
from compress.search.run import auto as search


def auto(
    model: str | Path,
    out: str | Path,
    options: Options | None = None,
    *,
    remove: str | None = None,
    params: str | None = None,
    bytes: str | None = None,
    latency: str | None = None,
    minutes: float | None = None,
    widths: Widths = "uniform",
    data: str | None = None,
) -> Report:
    """Make a model as small as asked by what turns out best on it; the same as the command `compress auto MODEL OUT`.

        report = compress.auto("my-model", "my-model-small", remove="20%")
        report["after"]["params"]

    Args:
        model: A folder with config.json and safetensors, or a hub id (`owner/name`, `owner/name@revision`).
        out: The folder to write. It appears when everything is done and verified, the recipe in it.
        options: How to go about it; the defaults without. Its `latency` says whether latency is measured.
        remove: Share of the blocks' parameters that goes, `"30%"`. One of this and the next three is given.
        params: Parameters that may be left in all, `"100M"`.
        bytes: Bytes of weights that may be left, `"200MB"`.
        latency: Share of the measured time of its projections on this machine that may be left, `"0.6"`.
        minutes: How long finding out may take, about; the cut, its verification and the evaluation come on top.
        widths: `uniform` gives an ordinary checkpoint; with `per-layer` each layer gets its own width.
        data: What to calibrate on: a source by name, a file or folder, or a dataset of the hub.

    Returns:
        What report.json holds, as `run` does.

    Raises:
        InputError: The goal or the model's folder is not usable as given, or the time is too short for one pass.
        ModelError: The model is not understood.
        BudgetError: Nothing that was tried meets the goal.
        VerifyError: What was written does not behave as planned; it is kept beside `out` as `<out>.partial`.
    """
    goal = Goal(remove, params, bytes, latency)
    return search(model, out, goal, options, minutes=minutes, widths=widths, data=data)
