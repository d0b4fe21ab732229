"""Running the recipes one after the other, and what comes of each."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from compress.checkpoint.ours import MARK
from compress.checkpoint.target import check_target
from compress.comparison.candidates import Candidate
from compress.comparison.fair import ranking, warnings
from compress.comparison.front import fronts
from compress.comparison.statistics import gather_together
from compress.comparison.write import remove_pages
from compress.console import say, warn
from compress.errors import CompressError, InputError
from compress.execution.run import Options, Shared
from compress.metrics.change import Sampled
from compress.pipeline import run, share
from compress.report import Report, environment
from compress.report.rows import mean_kept
from compress.steps.kinds import artifact_step

REPORT_FILES = ("report.json", "report.html", "plan.json", "recipe.yaml", "README.md", MARK)
"""What stays of a model whose weights are not kept; `compress apply plan.json` makes them again."""


class Quality(TypedDict):
    """One measure of it: `name` says of what, `change` from the dense model's by the fields of
    `compress.metrics.change.Change`."""

    name: str
    value: float
    higher_is_better: bool
    change: NotRequired[dict[str, Any]]


class Row(TypedDict):
    """What one recipe costs and keeps. A figure that was not measured is absent, and all but the first two where the
    recipe failed with an `error`.

    `params`: those that are not zero; `bytes` of the weights; `flops` as the share of the dense model's; `latency` as
    its share too, taken in turns with it, `latency_range` from low to high; `seconds` of work, evaluation apart. Of a
    rule about visual tokens, as shares too: those `kept`, in the mean over the decoder's layers, the FLOPs of the
    decoder's `prefill` of a prompt with a picture, and the key/value `cache` behind it; `latency` is then that of the
    first token.
    """

    name: str
    about: NotRequired[str]
    error: NotRequired[str]
    exit_code: NotRequired[int]
    params: NotRequired[int]
    bytes: NotRequired[int]
    flops: NotRequired[float]
    kept: NotRequired[float]
    prefill: NotRequired[float]
    cache: NotRequired[float]
    latency: NotRequired[float]
    latency_range: NotRequired[list[float]]
    quality: NotRequired[Quality]
    opens_with: NotRequired[str]
    seconds: NotRequired[float]


class Comparison(TypedDict):
    """compare.json. `front`: cost → names of the rows that nothing beats in it and in quality; `ranking` by quality;
    `warnings` of what makes rows unlike; `text` that quality was measured on; `flops_length`: tokens of the sequence
    that FLOPs are of."""

    model: str
    dense: Row
    rows: list[Row]
    front: dict[str, list[str]]
    ranking: list[dict[str, Any]]
    warnings: list[str]
    text: str | None
    flops_length: int | None
    seconds: dict[str, float]
    environment: dict[str, str]


def compare(
    chosen: Sequence[Candidate], model_in: str | Path, out: Path, options: Options, *, keep: bool = True
) -> Comparison:
    """Prune `model_in` by each recipe into `out/<name>` and say what each costs and keeps.

    The model is opened, traced and measured once, and calibrated once for all recipes that calibrate alike. A recipe
    that fails is a row with its `error`. Without `keep` only a model's report, plan and recipe stay.

    Raises InputError when `out` has something in it and may not be replaced, or no recipe is given.
    """
    if not chosen:
        raise InputError("no recipe to compare")
    for candidate in chosen:
        if (artifact := artifact_step(candidate.recipe)) is not None:
            raise InputError(f"{candidate.name}: what `{artifact.title()}` writes is no model to compare")
    check_target(out, options.force, [model_in], fill=True)
    for candidate in chosen:
        check_target(out / candidate.name, options.force, [model_in])
    start = time.perf_counter()
    shared = share(model_in, options, [candidate.recipe for candidate in chosen])
    chosen = [Candidate(one.name, one.recipe.on(shared.source.inputs.data)) for one in chosen]
    with shared.source.checkpoint.unchanged():
        gather_together(shared.source, [candidate.recipe for candidate in chosen], options.where)
        seconds = {"shared": time.perf_counter() - start}
    rows: list[dict[str, Any]] = []
    sampled: dict[str, Sampled] = {}
    for number, candidate in enumerate(chosen, 1):
        say(f"{number}/{len(chosen)}: {candidate.name}")
        rows.append(_row(candidate, model_in, out / candidate.name, options, shared, keep))
        if "error" not in rows[-1]:
            remove_pages(out)
        quality = shared.evaluator.last.quality if "quality" in rows[-1] and shared.evaluator is not None else None
        if quality is not None and quality.sampled is not None:
            sampled[candidate.name] = quality.sampled
    dense = _dense(shared, rows)
    seconds["recipes"] = sum(row.get("seconds", 0.0) for row in rows)
    return Comparison(
        model=str(model_in),
        dense=cast(Row, dense),
        rows=cast(list[Row], rows),
        front=fronts(rows),
        ranking=ranking(rows, sampled),
        warnings=warnings(chosen, rows, dense),
        text=shared.evaluator.last.text if shared.evaluator is not None else None,
        flops_length=shared.tokens if shared.source.inputs.free_length else None,
        seconds={name: round(value, 3) for name, value in seconds.items()},
        environment=environment(),
    )


def _row(
    candidate: Candidate, model_in: str | Path, folder: Path, options: Options, shared: Shared, keep: bool
) -> dict[str, Any]:
    row: dict[str, Any] = {"name": candidate.name, "about": candidate.recipe.about}
    try:
        report: Any = run(candidate.recipe, model_in, folder, options, shared)
    except CompressError as error:
        warn(f"{candidate.name}: {error}")
        return {**row, "error": str(error), "exit_code": error.exit_code}
    if report is None:
        raise InputError("compare runs in one process; start it without torchrun or accelerate")
    if not keep:
        for path in folder.iterdir():
            if path.name not in REPORT_FILES:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    return {**row, **_figures(report)}


def _figures(report: Report) -> dict[str, Any]:
    after, spent, changes = report["after"], report.get("seconds", {}), report.get("changes", {})
    found: dict[str, Any] = {"params": after["params"] - after.get("zeros", 0), "bytes": after["bytes"]}
    found["flops"] = after["flops"] / report["before"]["flops"]
    if visual := report.get("visual_tokens"):
        found["kept"] = mean_kept(visual)
        found |= {name: visual[key][1] / visual[key][0] for name, key in (("prefill", "flops"), ("cache", "cache"))}
    if time := changes.get("latency"):
        found |= {"latency": time["value"], "latency_range": [time["low"], time["high"]]}
    figures = report.get("quality", {}).get("figures", ())
    if (main := next((one for one in figures if one["ranks"]), None)) is not None:
        found["quality"] = _quality(main)
        if main["name"] in changes:
            found["quality"]["change"] = changes[main["name"]]
    found["opens_with"] = report["opens_with"]
    found["seconds"] = round(spent.get("total", 0.0) - spent.get("evaluate", 0.0), 3)
    return found


def _dense(shared: Shared, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The dense model's row: what it was found to be beside the others."""
    graph, checkpoint = shared.source.graph, shared.source.checkpoint
    found: dict[str, Any] = {"name": "dense", "params": graph.parameters(), "flops": 1.0, "bytes": checkpoint.bytes}
    found |= {name: 1.0 for name in ("kept", "prefill", "cache", "latency") if any(name in row for row in rows)}
    if shared.evaluator is not None and (measured := shared.evaluator.dense) is not None:
        found["quality"] = _quality(asdict(measured))
    elif alike := [row["quality"] for row in rows if "quality" in row]:
        found["quality"] = {**alike[0], "value": 1.0}
    return found


def _quality(figure: Mapping[str, Any]) -> dict[str, Any]:
    """What a row says of a `compress.metrics.kind.Figure`."""
    kept = {key: figure[key] for key in ("value", "higher_is_better", "scale")}
    return {"name": f"{figure['title']} of {figure['over']}", **kept}
