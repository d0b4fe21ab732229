"""report.json, report.html, the table and the model card, from one made-up report."""

from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict
from pathlib import Path

import pytest
from rich.console import Console

from compress.evaluate.latency import Latency
from compress.metrics.change import Change
from compress.metrics.kind import Figure, Scale
from compress.report import Report, environment, figures, markdown, table, write_card, write_report
from compress.report.card import card
from compress.report.document import quality
from compress.report.plots import cut_kinds, kept, positions, shares, svg
from compress.report.rows import count, percent, rows


@pytest.fixture
def report() -> Report:
    heads = [{"name": f"{i}.heads", "kind": "heads", "layer": i, "size": 8, "kept": 8 - i} for i in range(3)]
    whole = {"name": "0.channels", "kind": "channels", "layer": 0, "size": 64, "kept": 64}
    layers = {"name": "layers", "kind": "layers", "layer": None, "size": 4, "kept": 3, "removed": [3]}
    return Report(
        model="someone/small-llama",
        recipe={"about": "a <script>alert(1)</script> & more", "text": "about: it\nsteps:\n  - prune: heads\n"},
        before=figures(1_000_000, 2_000_000_000, 4_000_000, flops_length=512, latency=_latency(0.02)),
        after=figures(800_000, 1_500_000_000, 3_200_000, latency=_latency(0.015)),
        quality=quality("text-generation", [Figure("perplexity", "Perplexity", "4 × 128 tokens", 25.0, 20.0, False)]),
        families=[*heads, whole, layers],  # pyright: ignore[reportArgumentType]
        opens_with="stock transformers",
        load='AutoModelForCausalLM.from_pretrained("out")',
        notes=["a note"],
        environment=environment(),
        changes={"latency": asdict(Change(0.75, 0.7, 0.8, 9)), "perplexity": asdict(Change(1.25, 1.2, 1.3, 4))},
        text="manuals",
    )


def _latency(seconds: float) -> Latency:
    return Latency(seconds, seconds, batch=1, length=128, repeats=9, threads=2)


def test_rows_hold_what_was_measured(report: Report) -> None:
    found = {row.label: row for row in rows(report)}
    assert found["Parameters"][1:4] == ("1.00 M", "800 k", "−20.0 %")
    assert found["FLOPs of 512 tokens"].change == "−25.0 %"
    assert found["Weights on disk"].after == "3.2 MB"
    assert found["Latency, 1 × 128 tokens"][1:3] == ("20.0 ms", "15.0 ms")
    assert found["Latency, 1 × 128 tokens"].change == "−25.0 % (−30.0 to −20.0)"
    assert found["Perplexity, 4 × 128 tokens"].change == "+25.0 % (+20.0 to +30.0)"
    assert (found["Parameters"].better, found["Perplexity, 4 × 128 tokens"].better) == (True, False)


def test_what_chance_explains_is_no_difference_and_no_latency_of_the_card(report: Report, tmp_path: Path) -> None:
    report["changes"] = {  # pyright: ignore[reportGeneralTypeIssues]
        "latency": asdict(Change(0.75, 0.7, 1.1, 9)),
        "perplexity": asdict(Change(1.25, 0.99, 1.5, 4)),
    }
    found = {row.label: row for row in rows(report)}
    for label in ("Latency, 1 × 128 tokens", "Perplexity, 4 × 128 tokens"):
        assert (found[label].change, found[label].better) == ("no difference measurable", None)
    text = card(report)
    assert "Latency" not in text
    assert "| Perplexity, 4 × 128 tokens | 20.00 | 25.00 | no difference measurable |" in text
    shown = io.StringIO()
    Console(file=shown, width=100).print(table(report))
    assert shown.getvalue().count("no difference measurable") == 2
    page = write_report(tmp_path, report).read_text()
    assert page.count('class="none">no difference measurable') == 2
    report["changes"]["latency"] = asdict(Change(0.75, 0.7, 0.8, 9))
    assert "| Latency, 1 × 128 tokens | 20.0 ms | 15.0 ms | −25.0 % (−30.0 to −20.0) |" in card(report)


def test_a_figure_that_was_not_measured_has_no_row(report: Report) -> None:
    report["after"] = figures(800_000, 1_500_000_000, 3_200_000)
    del report["quality"]
    labels = [row.label for row in rows(report)]
    assert not any(label.startswith(("Latency", "Perplexity")) for label in labels)


def test_a_figure_is_shown_as_its_scale_and_direction_say(report: Report) -> None:
    def shown(scale: Scale, value: float, dense: float, higher: bool, change: Change | None) -> tuple[object, ...]:
        report["quality"] = quality("x", [Figure("it", "Title", "7 samples", value, dense, higher, scale)])
        latency = {"latency": asdict(Change(0.75, 0.7, 0.8, 9))}
        report["changes"] = {**latency, "it": asdict(change)} if change is not None else latency
        row = rows(report)[-1]
        assert row.label == "Title, 7 samples"
        return row[1:5]

    up, down = Change(1.25, 1.2, 1.3, 7), Change(0.8, 0.7, 0.9, 7)
    assert shown(Scale.NUMBER, 0.025, 0.02, False, up) == ("0.02", "0.025", "+25.0 % (+20.0 to +30.0)", False)
    assert shown(Scale.NUMBER, 25, 20, True, up) == ("20.00", "25.00", "+25.0 % (+20.0 to +30.0)", True)
    assert shown(Scale.SHARE, 0.8, 1.0, True, down) == ("100.0 %", "80.0 %", "−20.0 % (−30.0 to −10.0)", False)
    assert shown(Scale.SHARE, 0.8, 1.0, True, None) == ("100.0 %", "80.0 %", "−20.0 %", None)
    near = Change(0.98, 0.97, 0.99, 7)
    assert shown(Scale.SIMILARITY, 0.98, 1.0, True, near) == ("1", "0.9800", "−0.0200 ± 0.0100", None)
    assert shown(Scale.SIMILARITY, 0.98, 1.0, True, None)[2] == "−0.0200"  # two samples have no error of it


@pytest.mark.parametrize(
    ("value", "text"),
    [(7, "7"), (999, "999"), (1234, "1.23 k"), (6_884_736, "6.88 M"), (70.6e9, "70.6 G"), (671e9, "671 G")],
)
def test_counts_are_short(value: float, text: str) -> None:
    assert count(value) == text


def test_percent_has_a_sign_and_survives_zero() -> None:
    assert [percent(100, 81.7), percent(4, 5), percent(5, 5), percent(0, 5)] == ["−18.3 %", "+25.0 %", "±0.0 %", "–"]


def test_files_are_written_and_the_page_stands_alone(report: Report, tmp_path: Path) -> None:
    page = write_report(tmp_path, report)
    assert json.loads((tmp_path / "report.json").read_text()) == report
    text = page.read_text()
    assert text.count("<svg") == 2
    assert "<script" not in text and "&lt;script&gt;" in text
    links = {"src=", "<link", "@import", "url(http"}
    assert not any(link in text for link in links)
    for row in rows(report):
        assert row.change.partition(" (")[0] in text
    assert report["recipe"]["text"].splitlines()[0] in text


def test_the_page_shows_what_was_written_and_the_loss_by_position(report: Report, tmp_path: Path) -> None:
    assert "What it writes" not in write_report(tmp_path, report).read_text()
    report["generated"] = [{"prompt": "Two & two is", "before": " four", "after": " <b>five</b>\n"}]
    for side, loss in (("before", 3.0), ("after", 3.5)):
        report[side]["perplexity"] = {"by_position": [(1, loss), (2, loss / 2), (4, loss / 3)]}
    page = write_report(tmp_path, report).read_text()
    assert "Two &amp; two is …" in page and "> four</dd>" in page and "&lt;b&gt;five&lt;/b&gt;\n</dd>" in page
    figure = positions(report)
    assert figure is not None and "Loss by position" in page
    lines = [line.get_xydata().tolist() for line in figure.axes[0].lines]
    assert lines == [[[1, 3.0], [2, 1.5], [4, 1.0]], [[1, 3.5], [2, 1.75], [4, pytest.approx(3.5 / 3)]]]


def test_only_kinds_that_lost_something_are_drawn(report: Report) -> None:
    assert cut_kinds(report) == ["heads", "layers"]
    titles = [axes.get_title(loc="left") for axes in kept(report).axes]
    assert titles == ["Attention heads", "Layers"]
    labels = {text.get_text() for axes in kept(report).axes for text in axes.texts}
    assert {"8/8", "7/8", "6/8", "kept", "gone"} <= labels


def test_nothing_cut_leaves_out_the_plot_by_layer(report: Report, tmp_path: Path) -> None:
    report["families"] = []
    assert write_report(tmp_path, report).read_text().count("<svg") == 1


def test_many_layers_and_families_of_one_layer_are_added_up(report: Report) -> None:
    report["families"] = [
        {"name": f"{i}.{part}", "kind": "heads", "layer": i, "size": 4, "kept": 3} for i in range(80) for part in "ab"
    ]
    (axes,) = kept(report).axes
    assert [bar.get_height() for bar in axes.patches[80:]] == [0.75] * 80
    assert not axes.texts  # no room for numbers


def test_svg_is_valid_repeatable_and_takes_the_pages_colour(report: Report) -> None:
    text = svg(shares(report), "a")
    assert text == svg(shares(report), "a")
    ElementTree.fromstring(text)
    assert "currentColor" in text and "<metadata" not in text
    assert "80.0 %" in text  # text stays text


def test_table_shows_before_and_after(report: Report) -> None:
    shown = io.StringIO()
    Console(file=shown, width=100).print(table(report))
    line = next(line for line in shown.getvalue().splitlines() if "Parameters" in line)
    assert line.split() == ["Parameters", "1.00", "M", "800", "k", "−20.0", "%"]


def test_card_carries_the_licence_and_the_recipe(report: Report, tmp_path: Path) -> None:
    base = tmp_path / "base.md"
    base.write_text("---\nlicense: mit\nlanguage: en\ntags: [chat]\nmodel-index: []\n---\n# Base\n")
    text = write_card(tmp_path, report, base).read_text()
    from huggingface_hub import ModelCard

    data = ModelCard(text).data
    assert data.license == "mit" and data.language == "en"
    assert data.base_model == "someone/small-llama"
    assert {"chat", "pruned"} <= set(data.tags or [])
    assert report["recipe"]["text"].rstrip() in text
    assert "| Parameters | 1.00 M | 800 k | −20.0 % |" in text
    assert report["load"] in text and "`mit`" in text


def test_card_of_a_local_folder_links_nothing_and_says_that_no_licence_is_known(report: Report, tmp_path: Path) -> None:
    report["model"] = str(tmp_path / "llama-docs")
    text = card(report)
    assert "base_model" not in text and "huggingface.co" not in text
    assert "# llama-docs, pruned" in text and "names no licence" in text


HOSTILE = "Half gone.\n---\nlicense: mit\n---\n<script>alert(1)</script> [x](javascript:y) ``` <b> `ok <i>`"


def test_free_text_in_a_card_is_text(report: Report, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    report["model"] = str(tmp_path / "<img src=x>`<u>`")
    report["recipe"] = {"about": HOSTILE, "text": f"about: |\n  ```\n  {HOSTILE}\nsteps: []\n"}
    report["notes"] = [HOSTILE, "call `obey(model)` of q_proj"]
    report["load"] = "load('<em>```\n# x')"
    text = card(report)
    assert "license" not in ModelCard(text).data.to_dict()
    body = text.split("\n---\n", 1)[1]
    outside = re.sub(r"(?ms)^(`{3,})\w*\n.*?^\1$", "", body)  # without what is code
    outside, spans = re.sub(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)", "", outside), outside
    assert not re.search(r"<(script|img|b|em)|(?<!\\)\]\(javascript|^---$|^license", outside, re.MULTILINE)
    assert "&lt;script&gt;" in outside
    assert "- call `obey(model)` of q_proj" in spans  # what needs no escape has none
    assert report["load"] in body and report["recipe"]["text"].rstrip() in body


def test_code_in_a_card_ends_where_it_should() -> None:
    assert markdown.code("a`b``c") == "```a`b``c```" and markdown.code("`") == "`` ` ``"
    assert markdown.fenced("````\nx", "yaml") == "`````yaml\n````\nx\n`````"
    assert markdown.text("a\\`<b>` _x_ snake_case") == "a\\\\`<b>` \\_x\\_ snake_case"
    assert "<b>" not in markdown.text("`` x` `<b>`")
