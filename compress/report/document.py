"""What report.json holds: what was removed, what it cost and what it saved."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NotRequired, TypedDict

from compress.evaluate.latency import Latency
from compress.metrics.kind import Figure
from compress.version import __version__


class Figures(TypedDict):
    """One side of the comparison. A figure that was not measured is absent.

    `params`: stored parameters, ties once; `zeros`, those of them that a step set to zero. `flops`: of one forward of
    `flops_length` tokens, or of a sample where that is absent. `bytes`: of the weights. `latency`: fields of the class
    in `compress.evaluate`. Besides, the record of its quality under the name of the metric: `perplexity` (and
    `bits_per_byte` where the two models cut text differently), `accuracy`, or `similarity` to the dense model, which
    the pruned side alone has.
    """

    params: int
    flops: int
    bytes: int
    flops_length: NotRequired[int]
    zeros: NotRequired[int]
    latency: NotRequired[dict[str, Any]]
    perplexity: NotRequired[dict[str, Any]]
    bits_per_byte: NotRequired[dict[str, Any]]
    accuracy: NotRequired[dict[str, Any]]
    similarity: NotRequired[dict[str, Any]]


class Measured(TypedDict):
    """`figures`: fields of `compress.metrics.kind.Figure`, which tell how each is shown. `hub_task`: what the Hugging
    Face hub calls the task that they are of."""

    hub_task: str
    figures: list[dict[str, Any]]


class FamilyRow(TypedDict):
    """One family: of `size` groups `kept` are left. `removed` lists the indices that went, for kind `layers`."""

    name: str
    kind: str
    layer: int | None
    size: int
    kept: int
    removed: NotRequired[list[int]]


class SaliencyRow(TypedDict):
    """Of a family of this `kind` and `layer` (None: of the whole model): the share of its saliency, as the criterion of
    `step` sees it, that this step `kept`."""

    step: int
    kind: str
    layer: int | None
    kept: float


class RecipeText(TypedDict):
    """`about` is the recipe's own sentence, `text` the YAML as it was given."""

    about: str
    text: str


class Exported(TypedDict):
    """One export: its `result` as the format gives it, and the same for people: `lines` of (what, value), and `about`.

    `speed` is the format's own data; `timings` its rows, fields of `compress.export.format.Timing`.
    """

    result: dict[str, Any]
    lines: list[list[str]]
    about: str
    speed: NotRequired[dict[str, Any]]
    timings: NotRequired[list[dict[str, Any]]]


class Report(TypedDict):
    """report.json. `opens_with` says who can open the folder, `load` is the line of Python that does, `exports` what
    was written in which format. `quality`: the figures that the model's task has. `changes`, by figure: fields of
    `compress.metrics.change.Change`, where 1 is no difference. `text` is what quality was measured on.
    `saliency`: what the steps kept of it, where they know. `generated`, of models that write: fields of
    `compress.evaluate.continuations.Continuation`. `visual_tokens`, where a rule prunes them:
    `compress.evaluate.visual_tokens.VisualTokens`."""

    model: str
    recipe: RecipeText
    before: Figures
    after: Figures
    families: list[FamilyRow]
    opens_with: str
    load: str
    notes: list[str]
    environment: dict[str, str]
    exports: NotRequired[dict[str, Exported]]
    quality: NotRequired[Measured]
    seconds: NotRequired[dict[str, float]]
    changes: NotRequired[dict[str, dict[str, Any]]]
    text: NotRequired[str]
    saliency: NotRequired[list[SaliencyRow]]
    generated: NotRequired[list[dict[str, str]]]
    visual_tokens: NotRequired[dict[str, Any]]


def figures(
    params: int,
    flops: int,
    bytes: int,
    *,
    flops_length: int | None = None,
    zeros: int = 0,
    latency: Latency | None = None,
    record: Mapping[str, dict[str, Any]] | None = None,
) -> Figures:
    """One side of the comparison from what was measured; `record` is of `compress.metrics.kind.Quality`."""
    found = Figures(params=params, flops=flops, bytes=bytes)
    if flops_length is not None:
        found["flops_length"] = flops_length
    if zeros:
        found["zeros"] = zeros
    known = {} if latency is None else {"latency": asdict(latency)}
    found.update({**known, **(record or {})})  # pyright: ignore[reportCallIssue, reportArgumentType]
    return found


def quality(hub_task: str, figures: Sequence[Figure]) -> Measured:
    """The figures of a task as the report has them."""
    return Measured(hub_task=hub_task, figures=[asdict(figure) for figure in figures])


def environment(packages: tuple[str, ...] = ("torch", "transformers", "safetensors", "numpy")) -> dict[str, str]:
    """Versions and machine that the figures were measured with."""
    found = {"compress": __version__, "python": platform.python_version()}
    found.update({name: _version(name) for name in packages})
    return {**found, "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
