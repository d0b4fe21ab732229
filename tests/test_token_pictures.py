"""What a rule about visual tokens saves, and its pictures: in figures, in the report of a run, in a comparison."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest
import several
import torch
import vlms
from test_token_trace import LAST, TOWER, obeying

from compress import cli
from compress.comparison.front import fronts
from compress.comparison.write import columns, heads, lines
from compress.evaluate import before_after
from compress.evaluate.visual_tokens import looked
from compress.report.rows import rows
from compress.report.token_pictures import pictures, shown

STAGES = {"keep": 0.5, "score": TOWER}, {"at": {"decoder": 2}, "keep": 0.25, "score": LAST}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Two rules compared on a tiny LLaVA with a tokenizer: the folder, and what was shown."""
    place = tmp_path_factory.mktemp("compared")
    several.save("llava", place / "in", tokenizer=True)
    inside = "{at: {decoder: 1}, keep: 25%, score: {attention: {queries: last}}}"
    for name, stage in (("features", "{keep: 50%, score: {attention: {queries: cls}}}"), ("inside", inside)):
        (place / f"{name}.yaml").write_text(f"steps:\n- tokens: [{stage}]\n")
    given = [str(place / name) for name in ("features.yaml", "inside.yaml", "in")]
    with redirect_stdout(StringIO()) as shown, pytest.MonkeyPatch.context() as patch:
        patch.setattr(before_after, "SAMPLES", 8)
        assert cli.call(["compare", *given, "-o", str(place / "out"), "--force"]) == 0
    return place / "out", shown.getvalue()


def test_savings_are_those_counted_by_hand():
    with obeying("llava-clip", *STAGES) as (model, _, _):
        found = looked(model, model, vlms.prompt("llava-clip", rows=1))
        padded = looked(model, model, vlms.prompt("llava-clip", rows=2, pad=2))
    assert found is not None and padded is not None
    assert (found.visual, found.text, padded.text) == (36, 9, 10)  # of rows with 9 and 11
    assert found.kept == [0.5, 0.5, 0.25, 0.25]
    weights = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48
    cost = lambda tokens: 2 * weights * tokens + 4 * 32 * tokens**2  # noqa: E731
    assert found.flops == (4 * cost(45), 2 * cost(27) + 2 * cost(18))
    assert found.cache == (4 * 45 * 2 * 16 * 4, (2 * 27 + 2 * 18) * 2 * 16 * 4)


def test_tokens_outside_of_a_sliding_window_cost_nothing():
    with obeying("gemma3", {"keep": 1.0, "score": TOWER}) as (model, _, _):
        found = looked(model, model, vlms.prompt("gemma3", rows=1))
    assert found is not None
    tokens = 9 + 9
    assert found.cache[0] == 2 * (8 + tokens) * 2 * 16 * 4  # two layers see 8 tokens, two all of them


def test_a_picture_fades_where_tokens_went_and_is_coloured_where_they_merged():
    merging = {"keep": 0.5, "score": TOWER, "residual": {"nearest": {}}}
    with obeying("llava-clip", merging, {"at": {"decoder": 2}, "keep": 0.1, "score": LAST}) as (model, traces, _):
        model(**vlms.prompt("llava-clip", rows=1))
    (trace,) = traces
    (group,) = trace.groups
    before, first, second = (shown(trace, group, after) for after in (None, *trace.stages))
    into = trace.stages[1].of(group)
    tokens = lambda pixels: pixels.reshape(6, 4, 6, 4, 3).swapaxes(1, 2).reshape(36, -1)  # noqa: E731
    gone = (into < 0).numpy()
    assert 0 < gone.sum() < 36
    assert (tokens(second)[gone].std(1) < 0.25 * tokens(before)[gone].std(1)).all()
    holders, members = trace.stages[0].of(group).unique(return_counts=True)
    alone = torch.isin(trace.stages[0].of(group), holders[members == 1]).numpy()
    assert alone.any() and not alone.all()
    changed = np.abs(tokens(first) - tokens(before)).max(1) > 0.01
    assert (changed == ~alone).all()
    figure = pictures(traces)
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == ["the picture", "before the decoder", "from layer 2 on"]
    assert [axes.get_xlabel() for axes in figure.axes[1:]] == ["18 of 36", "4 of 36"]
    assert pictures([]) is None


def test_of_many_stages_the_last_at_each_place_is_drawn():
    before = [{"keep": keep, "score": TOWER} for keep in (0.9, 0.8, 0.7, 0.6, 0.5)]
    with obeying("llava-clip", *before, {"at": {"decoder": 2}, "keep": 0.1, "score": LAST}) as (model, traces, _):
        model(**vlms.prompt("llava-clip", rows=1))
    figure = pictures(traces)
    assert figure is not None
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "18 of 36", "4 of 36"]


@pytest.mark.slow
def test_the_report_of_a_run_has_pictures_and_what_is_saved(compared):
    folder = compared[0] / "features"
    report = json.loads((folder / "report.json").read_text())
    found = report["visual_tokens"]
    visual, text = int(found["visual"]), int(found["text"])
    left = round(found["kept"][0] * visual)
    assert left == (visual + 1) // 2
    labels = {row.label: row for row in rows(report)}
    assert labels["Visual tokens, mean over decoder layers"][1:3] == (str(visual), str(left))
    assert labels[f"Key/value cache, {visual} + {text} tokens"].better
    assert f"Time to first token, 1 × {visual + text} tokens" in labels
    page = (folder / "report.html").read_text()
    assert "Visual tokens that are left" in page and f"{left} of {visual}" in page and page.count("<image") >= 2


@pytest.mark.slow
def test_rules_are_compared_by_what_they_save_of_a_prompt_with_a_picture(compared):
    folder, shown = compared
    found = json.loads((folder / "compare.json").read_text())
    reports = [json.loads((folder / row["name"] / "report.json").read_text()) for row in found["rows"]]
    for row, report in zip(found["rows"], reports, strict=True):
        visual = report["visual_tokens"]
        assert row["kept"] == sum(visual["kept"]) / len(visual["kept"])
        assert row["prefill"] == visual["flops"][1] / visual["flops"][0] < 1
        assert row["cache"] == visual["cache"][1] / visual["cache"][0] < 1
    assert {"prefill", "cache"} <= set(found["front"]) <= {"prefill", "cache", "latency"}
    assert heads(found)[2:6] == ["Tokens", "Prefill", "Cache", "Latency"]
    assert [f"{100 * row['kept']:.1f} %" for row in found["rows"]] == [line.costs[0] for line in lines(found)[1:]]
    assert any("unlike shares of the visual tokens" in text for text in found["warnings"])
    assert (folder / "compare.png").is_file() and "<th>Prefill</th>" in (folder / "compare.html").read_text()
    assert max(len(line) for line in shown.splitlines() if "1  features" in line) <= 80


def test_where_some_recipes_prune_weights_these_have_a_column_too():
    some = [{"name": "rule", "params": 100, "flops": 1.0, "kept": 0.25, "prefill": 0.5, "seconds": 1.0}]
    some.append({"name": "smaller", "params": 80, "flops": 0.8, "seconds": 1.0})
    dense = {"name": "dense", "params": 100, "flops": 1.0, "kept": 1.0, "prefill": 1.0}
    found = {"dense": dense, "rows": some, "ranking": [], "front": {}}
    assert columns(found) == ["params", "kept", "flops", "latency"]
    assert [line.costs[1] for line in lines(found)] == ["100 %", "25.0 %", "–"]
    for row in some:
        row["quality"] = {"value": 1.0, "higher_is_better": True}
    assert set(fronts(some)) == {"params", "flops"}
