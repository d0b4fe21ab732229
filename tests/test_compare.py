"""compress compare: shared work, one table, fronts by hand; a recipe that fails is a row."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import spoken
import torch
import zoo
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from compress import cli
from compress.checkpoint.open import open_checkpoint
from compress.comparison import run as running
from compress.comparison.candidates import candidates
from compress.comparison.front import fronts
from compress.comparison.plot import pareto
from compress.comparison.write import lines
from compress.errors import InputError
from compress.evaluate.load import held_out, load_model
from compress.model.model import Model

CONTRASTS = Path(__file__).parent.parent / "recipes" / "contrasts"
TINY = ["--set", "calibrate.data=random", "--set", "calibrate.samples=4", "--set", "calibrate.length=16"]
RECIPE = "calibrate: {{data: random, samples: 4, length: 16}}\nsteps:\n- {{prune: channels, by: {}, remove: 25%}}\n"


@pytest.fixture
def place(tmp_path, harvested, monkeypatch):
    """A folder with recipes and a model `in`, which is the working directory."""
    shutil.copytree(harvested, tmp_path / "cache")
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for name in ("wanda", "fluctuation", "magnitude"):
        Path(f"{name}.yaml").write_text(RECIPE.format(name))
    zoo.save("llama", Path("in"))
    return tmp_path / "work"


def read(folder="out"):
    return json.loads(Path(folder, "compare.json").read_text())


@pytest.mark.slow
def test_every_contrast_runs(place, monkeypatch, capsys):
    zoo.save("llama", Path("in"), num_hidden_layers=6, hidden_size=64, intermediate_size=96, num_attention_heads=8)
    assert cli.call(["compare", str(CONTRASTS), "in", "-o", "out", "--no-evaluate", "--no-keep", *TINY]) == 0
    rows = read()["rows"]
    assert [row["name"] for row in rows] == sorted(path.stem for path in CONTRASTS.glob("*.yaml"))
    dense = read()["dense"]["params"]
    for row in rows:
        assert "error" not in row, row
        assert row["params"] / dense == pytest.approx(0.85, abs=0.012)  # heads and layers come in whole ones


@pytest.mark.slow
def test_one_table_one_page_one_plot(place, capsys):
    spoken.save("llama", Path("in"))
    given = ["wanda.yaml", "in", "-o", "out", "--sweep", "steps.0.remove=25%,50%", "--sweep", "steps.0.by=wanda,random"]
    assert cli.call(["compare", *given]) == 0
    shown, found = capsys.readouterr().out, read()
    names = [f"wanda-remove={share}-by={by}" for share in ("25%", "50%") for by in ("wanda", "random")]
    assert [row["name"] for row in found["rows"]] == names
    assert "dense" in shown and "Perplexity" in shown
    page = Path("out/compare.html").read_text()
    assert all(name in page for name in names)
    assert "<svg" in page and "http" not in page.replace("http://www.w3.org", "")
    assert Path("out/compare.png").read_bytes().startswith(b"\x89PNG")
    for row in found["rows"]:
        report = json.loads(Path("out", row["name"], "report.json").read_text())
        assert row["params"] == report["after"]["params"]
        assert row["quality"]["value"] == report["after"]["perplexity"]["value"]
        assert found["dense"]["quality"]["value"] == report["before"]["perplexity"]["value"]
        assert Path("out", row["name"], "model.safetensors").is_file()
    assert set(found["front"]) == {"params", "flops", "latency"}


@pytest.mark.slow
def test_rows_that_do_not_compare_carry_a_warning(place, capsys):
    spoken.save("llama", Path("in"), num_hidden_layers=4)
    longer = RECIPE.format("magnitude").replace("samples: 4, length: 16", "samples: 8, length: 32")
    Path("longer.yaml").write_text(longer.replace("25%", "75%"))
    assert cli.call(["compare", "wanda.yaml", "longer.yaml", "in", "-o", "out", "--no-latency"]) == 0
    shown, found, page = capsys.readouterr().out, read(), Path("out/compare.html").read_text()
    text, gone = found["warnings"]
    assert text == (
        "calibrated on unlike texts: 64 tokens of random (4 × 16): wanda; 256 tokens of random (8 × 32): longer"
    )
    one, other = (1 - row["params"] / found["dense"]["params"] for row in found["rows"])
    assert f"from {one:.1%} (wanda) to {other:.1%} (longer)" in gone
    assert "Warning: calibrated on unlike texts" in page and "Warning: unlike shares" in page
    assert "Warning: calibrated on unlike texts" in " ".join(shown.split())
    assert found["flops_length"] == 32
    assert set(found["front"]) == {"params", "flops"}
    for row in found["rows"]:
        plan = json.loads(Path("out", row["name"], "plan.json").read_text())["steps"][-1]
        assert plan["after"]["flops_length"] == 32
        assert row["flops"] == plan["after"]["flops"] / plan["before"]["flops"]
        assert "latency" not in row and "quality" in row


@pytest.mark.slow
def test_neighbours_in_the_ranking_are_told_apart_by_the_same_texts(place, capsys):
    spoken.save("llama", Path("in"))
    given = ["--sweep", "steps.0.by=random,wanda", "--set", "steps.0.remove=50%"]
    assert cli.call(["compare", "wanda.yaml", "magnitude.yaml", "in", "-o", "out", "--no-latency", *given]) == 0
    found = read()
    losses = {}
    source = Model.of(open_checkpoint(Path("in")))
    rows = held_out(source.inputs, source.checkpoint, length=256, samples=64)
    for name in [None, *(row["name"] for row in found["rows"])]:
        model = load_model(open_checkpoint(Path("out", name) if name else Path("in")))
        with torch.no_grad():
            losses[name] = np.array(
                [model(input_ids=row[None], labels=row[None]).loss.item() for some in rows for row in some["input_ids"]]
            )
    assert found["text"] == "manuals"
    means = [losses[one["name"]].mean() for one in found["ranking"]]
    assert means == pytest.approx(sorted(means), rel=1e-6)
    for above, one in pairwise(found["ranking"]):
        apart = losses[one["name"]] - losses[above["name"]]
        assert one["difference"] == pytest.approx(apart.mean(), abs=1e-6)
        assert one["error"] == pytest.approx(apart.std(ddof=1) / 8, rel=1e-2, abs=1e-7)
        assert one["measurable"] == (abs(one["difference"]) > 2 * one["error"])
    for row in found["rows"]:
        apart = losses[row["name"]] - losses[None]
        low = np.exp(apart.mean() - 2 * apart.std(ddof=1) / 8)
        assert row["quality"]["change"]["low"] == pytest.approx(low, rel=1e-4)
    same = [one["name"] for one in found["ranking"] if not one.get("measurable", True)]
    assert same  # one method under two names
    shown = " ".join(capsys.readouterr().out.split())
    assert "≈ cannot be told apart from the next better recipe" in shown
    marked = [line.name for line in lines(found) if line.quality.startswith("≈")]
    assert marked == [row["name"] for row in found["rows"] if row["name"] in same]


def test_latencies_that_cannot_be_told_apart_are_equal_on_the_front():
    def row(name, latency, between, value):
        quality = {"value": value, "higher_is_better": False}
        return {"name": name, "latency": latency, "latency_range": between, "quality": quality}

    rows = [row("worse", 0.80, [0.7, 0.9], 9), row("better", 0.85, [0.75, 0.95], 5), row("fast", 0.5, [0.4, 0.6], 12)]
    assert fronts(rows) == {"latency": ["fast", "better"]}  # by the figures alone `worse` would be on it


@pytest.mark.slow
def test_one_calibration_for_all(place, monkeypatch):
    """What runs on the calibration's samples, of 23 tokens as nothing else, runs for all recipes together once."""
    calls, forward = [], LlamaDecoderLayer.forward
    monkeypatch.setattr(
        LlamaDecoderLayer, "forward", lambda self, x, *a, **k: calls.append(x.shape[1]) or forward(self, x, *a, **k)
    )

    def counted(cache, *command):
        monkeypatch.setenv("COMPRESS_CACHE", str(place.parent / cache))
        calls.clear()
        assert cli.call([*command, "--no-evaluate", "--set", "calibrate.length=23"]) == 0
        return calls.count(23)

    files = ["wanda.yaml", "fluctuation.yaml", "magnitude.yaml"]
    together = counted("together", "compare", *files, "in", "-o", "out")
    alone = {Path(file).stem: counted(file, file, "in", f"alone/{Path(file).stem}") for file in files}
    assert together == alone["wanda"] == alone["fluctuation"] > alone["magnitude"] == 0
    for name in alone:
        one, other = (json.loads(Path(folder, name, "plan.json").read_text()) for folder in ("out", "alone"))
        # Sums that are gathered together with others may be rounded otherwise.
        rows = [plan["steps"][0]["decision"].pop("saliency").values() for plan in (one, other)]
        assert [row["kept"] for row in rows[0]] == pytest.approx([row["kept"] for row in rows[1]], rel=1e-5)
        (one,), (other,) = ([step["decision"]["kept"] for step in plan["steps"]] for plan in (one, other))
        assert one == other  # saliency itself is summed together with what the others want, and rounds otherwise


def test_a_recipe_that_fails_is_a_row(place, capsys):
    Path("impossible.yaml").write_text(RECIPE.format("wanda").replace("channels", "heads").replace("25%", "99%"))
    assert cli.call(["compare", "impossible.yaml", "wanda.yaml", "in", "-o", "out", "--no-evaluate"]) == 0
    failed, done = read()["rows"]
    assert failed["exit_code"] == 4 and "let at least that much stay" in failed["error"]
    assert done["params"] < read()["dense"]["params"]
    assert "failed" in capsys.readouterr().out
    assert not Path("out/impossible").exists()
    assert "let at least that much stay" in Path("out/compare.html").read_text()


@pytest.mark.slow
def test_models_that_are_not_kept_leave_their_papers(place):
    assert cli.call(["compare", "wanda.yaml", "in", "-o", "out", "--no-evaluate", "--no-keep"]) == 0
    assert sorted(path.name for path in Path("out/wanda").iterdir()) == sorted(running.REPORT_FILES)
    assert cli.call(["apply", "out/wanda/plan.json", "in", "again", "--no-evaluate"]) == 0
    assert json.loads(Path("again/config.json").read_text())["intermediate_size"] == 36


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["in", "-o", "out"], "at least one recipe"),
        (["wnada.yaml", "in", "-o", "out"], "did you mean 'wanda.yaml'?"),
        (["wanda.yaml", "wanda.yaml", "in", "-o", "out"], "two recipes of this name"),
        (["wanda.yaml", "in", "-o", "out", "--sweep", "steps.0.remove"], "key=value,value"),
        (["wanda.yaml", "in", "-o", "out", "--sweep", "steps.0.remove=10%,"], "key=value,value"),
        (["wanda.yaml", "in", "-o", "out", "--sweep", "steps.0.remove=10%,20"], "20 is no share"),
        (["in", "in", "-o", "out"], "no recipe (*.yaml)"),
        (["wanda.yaml", "in", "-o", "in"], "--force"),
    ],
)
def test_mistakes(arguments, words, place, capsys):
    before = sorted(path.name for path in place.iterdir())
    assert cli.call(["compare", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert sorted(path.name for path in place.iterdir()) == before


def test_commas_inside_brackets_belong_to_a_value(place):
    found = candidates([Path("wanda.yaml")], ["steps.0.by={magnitude: {norm: l1}},{random: {}},wanda"])
    assert [str(one.recipe.steps[0].by) for one in found] == ["magnitude(norm=l1)", "random", "wanda"]
    with pytest.raises(InputError, match=r"steps\.3"):
        candidates([Path("wanda.yaml")], ["steps.3.remove=10%,20%"])


def test_the_front_is_what_nothing_beats():
    def row(name, params, value):
        return {"name": name, "params": params, "quality": {"value": value, "higher_is_better": False}}

    rows = [row("cheap", 1, 9), row("good", 3, 2), row("beaten", 3, 5), row("between", 2, 4), row("twin", 2, 4)]
    assert fronts([*rows, {"name": "failed", "error": "…"}]) == {"params": ["cheap", "between", "twin", "good"]}
    for one in rows:
        one["quality"] = {"value": -one["quality"]["value"], "higher_is_better": True}
    assert fronts(rows) == {"params": ["cheap", "between", "twin", "good"]}


@pytest.mark.parametrize(("worst", "scale"), [(45.0, "linear"), (2400.0, "log")])
def test_a_recipe_that_breaks_the_model_does_not_press_the_others_together(worst, scale):
    def row(name, value, params):
        quality = {"name": "Perplexity", "value": value, "higher_is_better": False}
        return {"name": name, "params": params, "flops": params / 100, "quality": quality}

    rows = [row("good", 40.0, 80), row("bad", worst, 70)]
    found = {"dense": row("dense", 37.0, 100), "rows": rows, "front": fronts(rows)}
    figure = pareto(found)
    assert figure is not None
    assert [axes.get_yscale() for axes in figure.axes] == [scale] * 2 and figure.axes[0].yaxis_inverted()
