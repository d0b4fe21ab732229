"""`compress auto`: goals, pace, and the candidate that moves the output least is the one that is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import zoo

from compress.cli.call import call
from compress.errors import BudgetError, InputError
from compress.execution.baseline import Original
from compress.execution.context import Context
from compress.model.model import Model
from compress.pipeline import Options
from compress.recipe.read import parse_recipe, read_recipe
from compress.search import pace as pace_module
from compress.search import run as run_module
from compress.search.candidates import RIDGES, USUAL, Candidate, first, rounds
from compress.search.goal import Goal
from compress.search.pace import FEWEST, pace
from compress.search.run import auto

OPTIONS = Options(device="cpu", evaluate=False)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    few = ["calibrate.samples=4", "calibrate.gradients=2"]
    monkeypatch.setattr(run_module, "read_recipe", lambda name, given=(): read_recipe(name, [*few, *given]))
    monkeypatch.setattr(pace_module, "TRIED", 2)


def test_goals_are_shares_of_the_whole(tmp_path):
    source = Model.of(zoo.save("llama", tmp_path))
    graph, total = source.graph, source.graph.parameters()
    blocks = sum(
        source.weights.current(name).numel() for name in source.weights.names("") if name.startswith("model.layers.")
    )
    assert Goal(remove="25%").kept(source) == ("params", pytest.approx(1 - 0.25 * blocks / total))
    assert Goal(params=str(total // 2)).kept(source) == ("params", pytest.approx(total // 2 / total))
    assert Goal(bytes=str(source.checkpoint.bytes // 4)).kept(source) == ("params", pytest.approx(0.25, rel=1e-3))
    assert Goal(latency="0.6").kept(source) == ("latency", 0.6)
    assert graph.block_of("model.embed_tokens.weight") is None
    with pytest.raises(BudgetError, match="ask for less"):
        Goal(params="1B").kept(source)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "nothing says how small"),
        ({"remove": "20%", "params": "1M"}, "--remove and --params says"),
        ({"remove": "120%"}, "--remove 120%: a share"),
        ({"remove": "a lot"}, "--remove a lot: is no share"),
        ({"latency": "2"}, "--latency 2: a share"),
        ({"params": "many"}, "--params many: is no number"),
    ],
)
def test_goals_that_are_none_are_refused(tmp_path, given, text):
    with pytest.raises(InputError, match=text):
        Goal(**given).kept(Model.of(zoo.save("llama", tmp_path)))


def test_candidates_are_those_of_the_free_kinds(tmp_path):
    llama, mixtral = (Model.of(zoo.save(name, tmp_path / name)) for name in ("llama", "mixtral"))
    assert [str(one) for one in first(llama)] == [f"channels by {name}, ridge 0.1" for name in USUAL]
    found = first(mixtral)
    assert [one.kinds[0] for one in found] == ["experts"] * 2 + ["channels"] * len(USUAL)
    assert {one.ridge for one in found} == {None}  # no plain projection reads what is inside experts
    for one in (Candidate(("channels",), "wanda", widths="per-layer"), *found):
        (step,) = read_recipe("auto", one.overrides).steps
        assert step.prune == list(one.kinds) and step.by.name == one.criterion and step.widths == one.widths
        assert (step.repair is not None) == (one.ridge is not None)
        assert step.round == (1 if one.kinds == ("experts",) else 8)


def test_later_rounds_are_near_the_best_so_far(tmp_path):
    source, best = Model.of(zoo.save("llama", tmp_path / "llama")), Candidate(("channels",), "wanda")
    repaired, freer = rounds(source, "uniform")
    (joined,) = freer(best)
    assert joined == Candidate(("heads", "channels"), "wanda")
    assert [one.ridge for one in repaired(joined)] == [ridge for ridge in RIDGES if ridge != joined.ridge]
    _, freer = rounds(source, "per-layer")
    assert [(one.kinds, one.widths) for one in freer(best)] == [
        (("channels",), "per-layer"),
        (("heads", "channels"), "per-layer"),
    ]
    mixtral = Model.of(zoo.save("mixtral", tmp_path / "mixtral"))
    repaired, freer = rounds(mixtral, "uniform")
    experts = Candidate(("experts",), "reap", None)
    assert not list(repaired(experts)) and not list(freer(experts))
    (joined,) = freer(Candidate(("channels",), "wanda", None))
    assert joined.kinds == ("heads", "channels") and joined.ridge is not None  # heads can be made up for


@pytest.fixture
def context(tmp_path):
    source = Model.of(zoo.save("llama", tmp_path / "in"))
    given = parse_recipe(
        "calibrate: {data: random, length: 12, samples: 64, gradients: 16}\n"
        "steps: [{prune: channels, by: wanda, remove: 20%}]"
    )
    return Context(source, source, Original(source.graph), given, "cpu")


def test_speed_is_told_from_passes_of_one_and_of_three_samples(context, monkeypatch):
    ticks = iter([0.0, 3.0, 10.0, 15.0])  # three seconds of one sample, five of three
    monkeypatch.setattr(pace_module.time, "perf_counter", lambda: next(ticks))
    assert pace_module.Speed.of(context) == pace_module.Speed(load=2.0, each=1.0)


def test_a_time_box_divides_what_there_is(context, monkeypatch):
    monkeypatch.setattr(pace_module.Speed, "of", lambda _: pace_module.Speed(load=1.0, each=1.0))
    monkeypatch.setattr(pace_module, "TRIED", 4)
    boxes = [0.5, 1, 2, 4, 60]
    found = [pace(context, minutes, 3) for minutes in boxes]
    assert [one.rounds for one in found] == [0, 1, 2, 3, 3]
    assert found[-1].samples == pace_module.MOST
    for minutes, one in zip(boxes, found, strict=True):
        assert one.seconds - pace_module.APART <= 60 * minutes
        assert one.samples >= (pace_module.ENOUGH if one.rounds else FEWEST)
    assert pace(context, 4, 3, "per-layer").rounds == 2  # with widths by layer the last round takes longer
    assert pace(context, None, 3).samples == 64
    with pytest.raises(InputError, match=r"--minutes 0.1: too short for one pass, which takes about .* --minutes 1"):
        pace(context, 0.1, 3)


def test_without_time_for_trials_the_usual_way_is_taken(tmp_path, monkeypatch, capsys):
    zoo.save("llama", tmp_path / "in")
    monkeypatch.setattr(pace_module.Speed, "of", lambda _: pace_module.Speed(load=0.0, each=1.0))
    given = {"data": "random", "minutes": 0.4, "widths": "per-layer"}
    report = auto(tmp_path / "in", tmp_path / "out", Goal(remove="25%"), OPTIONS, **given)
    assert report["after"]["params"] < report["before"]["params"]
    said = capsys.readouterr().err
    for part in ("no time for trials", "no time to try widths by layer"):
        assert part in said
    assert "the output moves by" not in said
    assert read_recipe(tmp_path / "out" / "recipe.yaml").about == f"the usual choice, without trials: {first_way()}"


def first_way() -> str:
    return f"channels by {USUAL[0]}, ridge {RIDGES[1]}"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_the_best_candidate_is_written(name, tmp_path, capsys):
    zoo.save(name, tmp_path / "in")
    report = auto(tmp_path / "in", tmp_path / "out", Goal(remove="25%"), OPTIONS, data="random")
    before, after = (report[side]["params"] for side in ("before", "after"))
    assert 0.6 * before < after < before
    said = capsys.readouterr().err
    tried = {
        line.partition(": the output moves by ")[0]: float(line.rpartition(" ")[2])
        for line in said.splitlines()
        if ": the output moves by " in line
    }
    best = min(tried, key=lambda key: tried[key])
    assert f"chosen by trial among {len(tried)}: {best}" in said and len(tried) >= 2
    written = read_recipe(tmp_path / "out" / "recipe.yaml")
    assert written.about.startswith("chosen by trial") and best in written.about
    assert " and ".join(written.steps[0].prune) + f" by {written.steps[0].by.name}" in best
    if name == "llama":
        assert len(tried) == len(USUAL) + 1 + len(RIDGES) - 1
        assert zoo.stock("llama", tmp_path / "out")  # an ordinary checkpoint


def test_the_command(tmp_path, capsys):
    zoo.save("llama", tmp_path / "in")
    words = ["auto", str(tmp_path / "in"), str(tmp_path / "out")]
    assert call([*words, "--params", "1T", "--data", "random"]) == 4
    assert call(words) == 2 and "give one of --remove" in capsys.readouterr().err
    assert call([*words, "--remove", "20%", "--latency", "0.5"]) == 2
    assert call([*words, "--latency", "0.6", "--device", "cuda:7", "--data", "random"]) == 2
    assert "cuda:7: not usable here" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert call([*words, "--remove", "20%", "--data", "random", "--no-evaluate", "--json", "-q"]) == 0
    assert json.loads(capsys.readouterr().out)["after"]["params"] > 0
