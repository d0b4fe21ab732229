"""The saliency that each layer keeps: by hand from the dense weights, in plan.json, report.json and on the page."""

from __future__ import annotations

import json

import pytest
import zoo
from safetensors.torch import load_file

from compress import cli

RECIPE = "steps:\n- {prune: channels, by: {magnitude: {norm: l1}}, remove: 25%, allocate: global, widths: per-layer}\n"
IN_SEQUENCE = """calibrate: {data: random, samples: 4, length: 16}
steps:
- {prune: channels, by: wanda, remove: 25%, propagate: pruned}
"""
MEMBERS = (("gate_proj", 0), ("up_proj", 0), ("down_proj", 1))


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    zoo.save("llama", tmp_path / "in")
    return tmp_path


def test_it_is_the_share_of_the_scores_of_what_stays(place):
    (place / "r.yaml").write_text(RECIPE)
    assert cli.call(["r.yaml", "in", "out", "--no-evaluate", "-q"]) == 0
    [step] = json.loads((place / "out" / "plan.json").read_text())["steps"]
    report, weights = json.loads((place / "out" / "report.json").read_text()), load_file(place / "in/model.safetensors")
    assert len(report["saliency"]) == len(step["decision"]["saliency"]) > 1
    for row in report["saliency"]:
        assert (row["step"], row["kind"]) == (1, "channels")
        own = f"model.layers.{row['layer']}.mlp"
        scores = sum(weights[f"{own}.{name}.weight"].abs().sum(1 - dim) for name, dim in MEMBERS)
        kept = step["decision"]["kept"].get(f"{own}.channels", range(len(scores)))
        assert row["kept"] == pytest.approx((scores[list(kept)].sum() / scores.sum()).item(), abs=1e-5)
    assert any(row["kept"] < 0.95 for row in report["saliency"])
    assert "Saliency kept by layer" in (place / "out" / "report.html").read_text()


def test_blocks_that_are_decided_in_turn_have_it_too(place):
    (place / "r.yaml").write_text(IN_SEQUENCE)
    assert cli.call(["r.yaml", "in", "out", "--no-evaluate", "-q"]) == 0
    rows = json.loads((place / "out" / "report.json").read_text())["saliency"]
    assert [row["layer"] for row in rows] == list(range(len(rows))) and len(rows) > 1
    assert all(0.75 < row["kept"] < 1 for row in rows)  # a quarter goes, the weakest
