"""The model card: README.md of the output folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.console import warn
from compress.report import markdown
from compress.report.rows import label, rows
from compress.report.templates import templates

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

    from compress.report.document import Report

CARRIED = ("license", "license_name", "license_link", "language", "pipeline_tag", "datasets")
"""What the base model's card says that stays true of the smaller model."""

TEXTS = {
    "manuals": "English technical prose, Python's language reference and readmes of installed packages",
    "docs, split test": "Docstrings of installed packages, held out",
    "photos, split test": "Sample images of scikit-image, held out",
}
"""What quality is measured on, in words."""


def write_card(folder: Path, report: Report, base_card: Path | None = None) -> Path:
    """Write README.md into `folder` and return its path.

    Licence, languages and task are taken over from `base_card`, the base model's README.md. The base model is linked
    when `report["model"]` is a hub id, and named otherwise.
    """
    path = folder / "README.md"
    path.write_text(card(report, _metadata(base_card)), encoding="utf-8")
    return path


def card(report: Report, base: dict[str, Any] | None = None) -> str:
    """Text of the card; `base` is the metadata of the base model's card."""
    from huggingface_hub import ModelCardData

    base, model = base or {}, report["model"]
    hub_id = model if re.fullmatch(r"[\w.-]+/[\w.-]+", model) and not Path(model).exists() else None
    tags = [*_listed(base.get("tags")), "pruned", "compress"]
    name = model if hub_id else Path(model).name or model
    results = evaluation_results(report)
    metadata = ModelCardData(
        **{name: base[name] for name in CARRIED if name in base},
        base_model=hub_id,
        library_name="transformers",
        tags=list(dict.fromkeys(tags)),
        model_name=f"{name}, pruned" if results else None,
        eval_results=results or None,
    )
    jinja = templates("compress.report", html=False)
    jinja.filters.update(text=markdown.text, code=markdown.code, fenced=markdown.fenced)
    return jinja.get_template("card.md.jinja").render(
        metadata=metadata.to_yaml(),
        report=report,
        name=name,
        hub_id=hub_id,
        license=base.get("license_name") or base.get("license"),
        rows=[row for row in rows(report) if row.lasting],
        text=TEXTS.get(report.get("text", ""), report.get("text")),
    )


def add_scores(folder: Path, scores: list[dict[str, Any]]) -> None:
    """Write benchmark scores (`compress.evaluate.harness.Score` as data) into the head of the folder's card.

    Earlier scores of the same task and metric are replaced.
    """
    from huggingface_hub import EvalResult, ModelCard

    path = folder / "README.md"
    opened = ModelCard(path.read_text(encoding="utf-8"))
    data: Any = opened.data
    new = [
        EvalResult(
            task_type="text-generation",
            dataset_type=score["task"],
            dataset_name=score["task"],
            metric_type=score["metric"],
            metric_name=f"{score['metric']} of {score['samples']} questions, 0-shot, lm-evaluation-harness",
            metric_value=round(score["value"], 4),
        )
        for score in scores
    ]
    measured = {(result.dataset_type, result.metric_type) for result in new}
    kept = [one for one in data.eval_results or () if (one.dataset_type, one.metric_type) not in measured]
    data.eval_results, data.model_name = [*kept, *new], data.model_name or folder.name
    path.write_text(str(opened), encoding="utf-8")


def evaluation_results(report: Report) -> list[EvalResult]:
    """What was measured of the pruned model, as the hub reads it out of a card's head (`model-index`)."""
    from huggingface_hub import EvalResult

    quality, text = report.get("quality"), report.get("text", "")
    if quality is None:
        return []
    data: dict[str, Any] = {"dataset_type": text.partition(",")[0], "dataset_name": TEXTS.get(text, text)}
    return [
        EvalResult(
            task_type=quality["hub_task"],
            metric_type=one["name"],
            metric_name=label(one),
            metric_value=round(one["value"], 4),
            **data,
        )
        for one in quality["figures"]
    ]


def _metadata(base_card: Path | None) -> dict[str, Any]:
    """The YAML at the head of a card; empty when there is no card or none in it."""
    if base_card is None or not base_card.is_file():
        return {}
    from huggingface_hub.repocard import ModelCard
    from yaml import YAMLError  # the hub client reads cards by it

    try:
        return ModelCard(base_card.read_text(encoding="utf-8"), ignore_metadata_errors=True).data.to_dict()
    except (ValueError, YAMLError) as error:  # of a text that was written by hand, after all the work
        reason = " ".join(str(error).split())[:200]
        warn(f"{base_card}: its head cannot be read ({reason}), so nothing of it is in the new model card")
        return {}


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])
