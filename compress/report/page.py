"""report.json and report.html, one file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from compress.registry.importing import uncollected
from compress.report.document import Report
from compress.report.rows import NO_DIFFERENCE, percent, rows
from compress.report.templates import templates
from compress.runtime.tokens.trace import Trace


def write_report(folder: Path, report: Report, traces: Sequence[Trace] = ()) -> Path:
    """Write report.json and report.html into `folder`; returns the path of the latter.

    Of a rule about visual tokens the page shows, by `traces`, the pictures that are left of some prompts.
    """
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    page = folder / "report.html"
    page.write_text(render(report, traces), encoding="utf-8")
    return page


def render(report: Report, traces: Sequence[Trace] = ()) -> str:
    """The report as one HTML page: styles and plots are inside, nothing is fetched."""
    with uncollected():
        from compress.report import plots, token_pictures  # matplotlib takes a while

    return (
        templates("compress.report")
        .get_template("report.html.jinja")
        .render(
            report=report,
            rows=rows(report),
            no_difference=NO_DIFFERENCE,
            saved=percent(report["before"]["params"], report["after"]["params"]),
            shares=plots.svg(plots.shares(report), "shares"),
            kept=plots.svg(plots.kept(report), "kept") if plots.cut_kinds(report) else None,
            saliency=plots.svg(drawn, "saliency") if (drawn := plots.saliency(report)) else None,
            positions=plots.svg(figure, "positions") if (figure := plots.positions(report)) else None,
            pictures=plots.svg(seen, "pictures") if (seen := token_pictures.pictures(traces)) else None,
        )
    )
