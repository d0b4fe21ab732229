"""A recipe says what it means, and every mistake in it is reported at once, with its place."""

import json
from pathlib import Path

import pytest

from compress import registry
from compress.errors import InputError
from compress.recipe import Part, Recipe, json_schema, parse_recipe, read_recipe
from compress.registry import Registry
from compress.registry.scope import Scope

GOOD = """\
about: FLAP, 20 % off
calibrate: {data: docs, samples: 16, length: 64}
steps:
  - prune: [heads, channels]
    by: fluctuation
    remove: 20%
    allocate: standardized
    repair: bias
  - prune: channels
    by: {wanda: {power: 1e-1}}
    keep: {flops: 0.6}
    round: 8
    skip_layers: [0, -1]
"""


def needed(found: Registry, *, layers: bool) -> dict[str, object]:
    """What a part of a registry cannot be added without."""
    return {
        "criterion": {"scope": Scope.LAYERS if layers else Scope.WEIGHTS},
        "repair": {"adds_bias": True},
    }.get(found.kind, {})


def only(found: Registry, monkeypatch: pytest.MonkeyPatch, *parts: str, **meta: str) -> None:
    """Leave just these parts in the registry; the parts of the package itself are tested elsewhere."""
    own = Registry(found.kind, found.package, found.metadata)
    for name in parts:

        def part(weight: object, *, power: float = 1.0, base: int = 2) -> None:
            """A part."""

        own.add(name, **needed(found, layers=meta.get("layers") == name))(part)
    monkeypatch.setattr(found, "_entries", own._entries)
    monkeypatch.setattr(found, "_walked", True)


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    only(registry.criteria, monkeypatch, "wanda", "fluctuation", "influence", layers="influence")
    only(registry.allocators, monkeypatch, "uniform", "standardized")
    only(registry.repairs, monkeypatch, "bias")
    only(registry.sources, monkeypatch, "docs", "random")


def mistakes(text: str, *overrides: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        parse_recipe(text, name="r.yaml", overrides=overrides)
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


def step(text: str) -> list[str]:
    return mistakes("steps:\n  - {" + text + "}\n")


def test_a_good_recipe() -> None:
    recipe = parse_recipe(GOOD)
    first, second = recipe.steps
    assert (first.prune, first.by, first.repair) == (["heads", "channels"], Part("fluctuation"), Part("bias"))
    assert first.budget == ("remove", 0.2, None)
    assert (second.prune, second.by, second.skip_layers) == (["channels"], Part("wanda", {"power": 0.1}), [0, -1])
    assert second.budget == ("keep", 0.6, "flops")
    assert (second.allocate, second.widths, second.propagate, second.reduce) == (
        Part("uniform"), "uniform", "dense", "sum",
    )  # fmt: skip
    assert second.by.bind(registry.criteria).keywords == {"power": 0.1}
    assert recipe.calibrate.samples == 16 and recipe.calibrate.batch == 8 and recipe.seed == 0


def test_a_dump_reads_back_as_the_same_recipe() -> None:
    recipe = parse_recipe(GOOD)
    text = recipe.dump()
    assert parse_recipe(text) == recipe
    assert text.startswith("about: FLAP, 20 % off\nseed: 0\n") and "remove: 20%" in text and "flops: 60%" in text


def test_every_mistake_is_reported_at_once_in_the_order_of_the_file() -> None:
    text = """\
calibrat: 3
calibrate: {data: docs, sample: 3, length: 1.5}
steps:
  - prune: haeds
    by: wnada
    remove: 20
    until: 20%
  - prune: [channels, vocab]
    by: {wanda: {pwoer: 3}}
    keep: {params: 80%}
    widths: per-leyer
"""
    places = [line.partition(": ") for line in mistakes(text)]
    assert [place for place, _, _ in places] == [
        "r.yaml:1:1", "r.yaml:2:25", "r.yaml:2:44", "r.yaml:4:12", "r.yaml:5:9", "r.yaml:6:13", "r.yaml:7:12",
        "r.yaml:8:23", "r.yaml:9:18", "r.yaml:11:13",
    ]  # fmt: skip
    texts = [text for _, _, text in places]
    assert texts[0].startswith("calibrat: unknown key; did you mean 'calibrate'?")
    assert texts[1].startswith("calibrate.sample: unknown key; did you mean 'samples'?")
    assert texts[2] == "calibrate.length: input should be a valid integer, not 1.5"
    assert texts[3].startswith("steps.0.prune: unknown kind 'haeds'; did you mean 'heads'?")
    assert texts[4].startswith("steps.0.by: unknown criterion 'wnada'; did you mean 'wanda'? (known: fluctuation,")
    assert texts[5] == "steps.0.remove: 20 is no share; write a share as 20% or 0.2"
    assert texts[6] == "steps.0.until: a step has one budget, this one has remove and until; leave one out"
    assert texts[7].startswith("steps.1.prune.1: the vocabulary is a step of its own")
    assert texts[8] == "steps.1.by.wanda.pwoer: unknown argument; did you mean 'power'? (known: base, power)"
    assert (
        texts[9]
        == "steps.1.widths: input should be 'uniform' or 'per-layer', not 'per-leyer'; did you mean 'per-layer'?"
    )


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("prune: heads, by: wanda", "steps.0: no budget; add one of `remove: 20%`"),
        (
            "prune: heads, by: {wanda: {power: much}}, remove: 20%",
            "steps.0.by.wanda.power: input should be a valid number",
        ),
        (
            "prune: heads, by: {wanda: {}, fluctuation: {}}, remove: 20%",
            "a criterion is written as its name, or as {name",
        ),
        ("prune: [heads, heads], by: wanda, remove: 20%", "steps.0.prune: 'heads' stands here twice"),
        ("prune: [], by: wanda, remove: 20%", "steps.0.prune: at least one is needed"),
        ("prune: [heads, weights], by: wanda, remove: 20%", "single weights are a step of their own"),
        ("prune: [layers, heads], by: influence, remove: 20%", "'influence' ranks layers, it cannot rank heads"),
        ("by: wanda, remove: 20%", "steps.0: key 'prune' is missing"),
        ("prune: heads, remove: 20%", "steps.0: key 'by' is missing"),
    ],
)
def test_a_step_gone_wrong(written: str, text: str) -> None:
    found = step(written)
    assert len(found) == 1, found
    assert text in found[0] and found[0].startswith("r.yaml:2:")


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("remove: 1", "1 is no share; write a share as 1% or 0.01"),
        ("remove: 0%", "a share lies between 0% and 100%, both excluded, not 0%"),
        ("remove: 100%", "both excluded, not 100%"),
        ("remove: 1.0", "both excluded, not 1.0"),
        ("remove: -0.1", "-0.1 is no share"),
        ("remove: yes", "'yes' is no share; write a share as 20% or 0.2"),
        ("remove: true", "True is no share"),
        ("keep: {params: 80%, flops: 80%}", "give exactly one of params, flops, latency"),
        ("keep: {parms: 80%}", "not 'parms'; did you mean 'params'?"),
        ("keep: 80%", "steps.0.keep: input should be a valid dictionary, not '80%'"),
        ("remove: 20%, allocate: unform", "unknown allocator 'unform'; did you mean 'uniform'?"),
        ("remove: 20%, repair: lora", "unknown repair 'lora' (known: bias)"),
        ("remove: 20%, round: 0", "steps.0.round: input should be greater than or equal to 1"),
        ("remove: 20%, round: true", "steps.0.round: input should be a valid integer, not True"),
    ],
)
def test_a_step_gone_wrong_behind_its_criterion(written: str, text: str) -> None:
    test_a_step_gone_wrong(f"prune: heads, by: wanda, {written}", text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "r.yaml:1:1: the recipe is empty"),
        ("- prune: heads", "r.yaml:1:1: the recipe is not a mapping"),
        ("about: x", "r.yaml:1:1: key 'steps' is missing"),
        ("steps: []", "r.yaml:1:8: steps: at least one is needed"),
        ("steps: heads", "r.yaml:1:8: steps: input should be a valid list, not 'heads'"),
        ("steps:\n  - [heads]", "r.yaml:2:5: steps.0: input should be a valid dictionary"),
        ("about: {a: 1", "r.yaml:1:13: expected ',' or '}'"),
        ("about: x\nabout: y\n", "r.yaml:2:1: found duplicate key"),
        ("about: a\tb: c", "r.yaml:1:"),
        ("a: &a [*a]\nsteps: *a\n", "r.yaml:1:1: a: unknown key"),
        ("---\na: 1\n---\nb: 2\n", "r.yaml:3:1: but found another document"),
    ],
)
def test_a_file_gone_wrong(text: str, said: str) -> None:
    assert mistakes(text)[0].startswith(said)


def test_overrides() -> None:
    recipe = parse_recipe(
        GOOD,
        overrides=[
            "steps.0.remove=null",
            "steps.0.until=30%",
            "steps.1.by={wanda: {power: 3}}",
            "steps.1.by.wanda.base=4",
        ],
    )
    assert recipe.steps[0].budget == ("until", 0.3, None)
    assert recipe.steps[1].by == Part("wanda", {"power": 3, "base": 4})
    bare = "steps: [{prune: heads, by: wanda, remove: 20%}]"
    assert parse_recipe(bare, overrides=["calibrate.samples=4", "about=a=b"]).calibrate.samples == 4
    assert parse_recipe(bare, overrides=["about=a=b"]).about == "a=b"


def test_mistaken_overrides_are_named_with_the_file_s_own() -> None:
    assert mistakes(
        GOOD.replace("round: 8", "rond: 8"),
        "steps.3.remove=20%", "steps.0.remove=20", "about", "steps.0.by.x=1", "calibrate.data=dcos", "seed=[",
    ) == [
        "--set steps.3.remove=20%: the recipe has no 'steps.3'; steps has items 0 to 1",
        "--set about: write it as key=value, for example steps.0.remove=30%",
        "--set steps.0.by.x=1: steps.0.by is 'fluctuation', there is nothing inside it to set",
        mistakes("seed: [")[0].replace("r.yaml:1:8", "--set seed=[: the value:1:2"),
        "--set calibrate.data=dcos: calibrate.data: 'dcos' is no source, file or folder; did you mean 'docs'?"
        " (sources: docs, random)",
        "--set steps.0.remove=20: steps.0.remove: 20 is no share; write a share as 20% or 0.2",
        "r.yaml:12:5: steps.1.rond: unknown key; did you mean 'round'? (known: align, allocate, by, clusters, keep,"
        " merge, propagate, prune, reduce, remove, repair, round, skip, skip_layers, stay, until, widths)",
    ]  # fmt: skip


def test_calibration_data(tmp_path: Path) -> None:
    def data(text: str) -> object:
        return parse_recipe(
            f"calibrate: {{data: {text}}}\nsteps: [{{prune: heads, by: wanda, remove: 20%}}]"
        ).calibrate.data

    (tmp_path / "mine.txt").write_text("words")
    assert data("random") == Part("random")
    assert data("{random: {base: 3}}") == Part("random", {"base": 3})
    assert data(str(tmp_path / "mine.txt")) == str(tmp_path / "mine.txt")
    assert data("Salesforce/wikitext") == "Salesforce/wikitext"
    with pytest.raises(InputError, match="no source, file or folder"):
        data(str(tmp_path / "missing.txt"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "flap-20.yaml").write_text(GOOD)
    assert read_recipe(tmp_path / "flap-20.yaml").about == "FLAP, 20 % off"
    with pytest.raises(InputError, match=r"flap-2\.yaml: no such recipe; did you mean 'flap-20.yaml'\?"):
        read_recipe(tmp_path / "flap-2.yaml")
    with pytest.raises(InputError, match="this is a folder"):
        read_recipe(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\x00\xfe")
    with pytest.raises(InputError, match="not a text file in UTF-8"):
        read_recipe(tmp_path / "binary")


def test_yaml_is_version_1_2() -> None:
    assert parse_recipe("about: no\n" + GOOD.partition("\n")[2]).about == "no"  # 1.1 reads False


def test_the_schema_is_json_and_knows_the_keys() -> None:
    schema = json.loads(json.dumps(json_schema()))
    prune = schema["$defs"]["Prune"]
    assert prune["additionalProperties"] is False and {"prune", "by", "remove", "keep"} <= set(prune["properties"])
    assert [entry["required"] for entry in prune["oneOf"]] == [["remove"], ["until"], ["keep"]]


def test_a_recipe_made_in_python_is_checked_too() -> None:
    step = {"prune": ["heads"], "by": "wanda", "remove": 0.2}
    assert Recipe.model_validate({"steps": [step]}).steps[0].by == Part("wanda")
    with pytest.raises(ValueError, match="unknown criterion 'wnada'"):
        Recipe.model_validate({"steps": [{**step, "by": "wnada"}]})
