"""What a rule about visual tokens saves, and its pictures: in figures, in the report of a run, in a comparison."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import vlms
from test_token_trace import LAST, TOWER, obeying

from compress.evaluate.visual_tokens import looked
from compress.pipeline import run
from compress.recipe.read import parse_recipe
from compress.report.rows import rows
from compress.report.token_pictures import pictures, shown

RULE = "steps:\n- tokens:\n  - {{keep: {}, score: {{attention: {{queries: cls}}}}}}\n"
STAGES = {"keep": 0.5, "score": TOWER}, {"at": {"decoder": 2}, "keep": 0.25, "score": LAST}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny LLaVA on disk."""
    place = tmp_path_factory.mktemp("vlm") / "llava"
    vlms.vlm("llava-clip").save_pretrained(place)
    return place


def test_savings_are_those_counted_by_hand():
    with obeying("llava-clip", *STAGES) as (model, _, _):
        found = looked(model, vlms.prompt("llava-clip", rows=1))
        padded = looked(model, vlms.prompt("llava-clip", rows=2, pad=2))
    assert found is not None and padded is not None
    assert (found.visual, found.text, padded.text) == (36, 9, 10)  # of rows with 9 and 11
    assert found.kept == [0.5, 0.5, 0.25, 0.25]
    weights = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48
    cost = lambda tokens: 2 * weights * tokens + 4 * 32 * tokens**2  # noqa: E731
    assert found.flops == (4 * cost(45), 2 * cost(27) + 2 * cost(18))
    assert found.cache == (4 * 45 * 2 * 16 * 4, (2 * 27 + 2 * 18) * 2 * 16 * 4)


def test_tokens_outside_of_a_sliding_window_cost_nothing():
    with obeying("gemma3", {"keep": 1.0, "score": TOWER}) as (model, _, _):
        found = looked(model, vlms.prompt("gemma3", rows=1))
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


def test_the_report_of_a_run_has_pictures_and_what_is_saved(folder, tmp_path):
    report = run(parse_recipe(RULE.format("25%")), folder, tmp_path / "out")
    found = report["visual_tokens"]
    assert found["kept"] == [0.25] * 4 and found["visual"] == 36
    labels = {row.label: row for row in rows(report)}
    assert labels["Visual tokens, mean over decoder layers"].change == "−75.0 %"
    text = int(found["text"])
    assert labels[f"Key/value cache, 36 + {text} tokens"].better
    assert f"Time to first token, 1 × {36 + text} tokens" in labels
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Visual tokens that are left" in page and "9 of 36" in page and page.count("<image") >= 2
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
