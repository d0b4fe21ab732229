"""compress auto: a goal instead of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from compress.cli.app import Input, Talk, Writing, announce, app, loading, options
from compress.cli.prune import finish


@app.command
def auto(
    model: str,
    out: Path,
    /,
    *,
    remove: str | None = None,
    params: str | None = None,
    bytes: str | None = None,
    latency: str | None = None,
    minutes: float | None = None,
    widths: Literal["uniform", "per-layer"] = "uniform",
    data: str | None = None,
    opening: Input = Input(),
    writing: Writing = Writing(),
    talk: Talk = Talk(),
) -> None:
    """Make MODEL so small into the folder OUT, by what turns out best on it.

    Kinds of units, criteria and repairs are tried out on the model at the same size; the recipe of the best one is run,
    and is left as OUT/recipe.yaml. Say how small in one way.

    Parameters
    ----------
    model
        A folder with config.json and safetensors, or a hub id.
    out
        The folder to write; it appears when everything is done and verified.
    remove
        Share of the blocks' parameters that goes: 30%. Embeddings stay.
    params
        Parameters that may be left in all: 100M.
    bytes
        Bytes of weights that may be left: 200MB.
    latency
        Share of the measured time of its projections on this machine that may be left: 0.6.
    minutes
        How long finding out may take, about; by it goes how much is calibrated on and tried. The cut, its verification
        and the evaluation come on top.
    widths
        `uniform` gives an ordinary checkpoint; with `per-layer` each layer gets its own width, which is better and
        needs a modeling file.
    data
        What to calibrate on: a source by name, a file or folder, or a dataset of the hub.
    """
    announce(f"auto: {model} → {out}")
    with loading():
        from compress.api import auto as search
    report = search(
        model,
        out,
        options(opening, writing),
        remove=remove,
        params=params,
        bytes=bytes,
        latency=latency,
        minutes=minutes,
        widths=widths,
        data=data,
    )
    finish(report, out)
