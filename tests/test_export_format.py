"""An export format is one class that registers itself: recipe, command, folder and report know it by its name."""

import json
import subprocess
import sys

import pytest
import zoo
from pydantic import BaseModel, ConfigDict, Field

from compress import cli
from compress.checkpoint.open import open_checkpoint
from compress.errors import InputError
from compress.export.format import Comparison, Format, Timing, Written
from compress.metrics.change import time_change
from compress.pipeline import Options, run
from compress.recipe.read import parse_recipe
from compress.recipe.schema import json_schema
from compress.registry import formats

RECIPE = """\
seed: 1
steps:
- {prune: channels, by: magnitude, remove: 50%}
export:
  toy: {mark: "#"}
"""


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    mark: str = Field("*", description="Stands in front of every name.")
    columns: int = Field(80, ge=1, description="Characters of a line.")
    loud: bool = Field(False, description="In capitals.")


class Toy(Format):
    """The names of all tensors, one a line."""

    settings = Settings

    def write(self, checkpoint, folder, settings):
        names = sorted(checkpoint.tensors)
        lines = [f"{settings.mark}{name}"[: settings.columns] for name in names]
        text = "\n".join(lines)
        (folder / "names.txt").write_text(text.upper() if settings.loud else text)
        return Written({"names": len(names)}, [("Names & more", str(len(names)))], "In `toy/` are its names.")

    def compare(self, dense, folder, settings, budget, took):
        assert (folder / "names.txt").exists() and took > 0 and dense.checkpoint.tensors
        change = time_change([2.0] * 8, [1.0] * 8)
        return Comparison(
            {"names": len(dense.checkpoint.tensors)}, [Timing("Reading names", 2.0, 1.0, change)], ["a toy's note"]
        )


@pytest.fixture
def toy(monkeypatch):
    formats.names()  # so that the package's own are all there before one more is
    monkeypatch.setattr(formats, "_entries", dict(formats._entries))
    formats.add("toy")(Toy)


@pytest.fixture
def model(tmp_path):
    zoo.save("bert", tmp_path / "in")
    return tmp_path / "in"


def test_a_recipe_names_it_and_out_and_report_have_it(toy, model, tmp_path):
    out = tmp_path / "out"
    report = run(parse_recipe(RECIPE), model, out)
    names = sorted(open_checkpoint(out).tensors)
    assert (out / "toy" / "names.txt").read_text().splitlines() == [f"#{name}" for name in names]
    said = json.loads((out / "report.json").read_text())
    assert said == report
    assert said["exports"]["toy"]["result"] == {"names": len(names)}
    assert said["exports"]["toy"]["speed"] == {"names": len(names)}
    assert "a toy's note" in said["notes"]
    page, card = (out / "report.html").read_text(), (out / "README.md").read_text()
    assert "Exported: toy" in page and f"<dt>Names &amp; more</dt><dd>{len(names)}</dd>" in page
    assert "In `toy/` are its names." in card and "| Reading names | 2000.0 ms | 1000.0 ms | −50.0 %" in card
    assert parse_recipe((out / "recipe.yaml").read_text()).export == parse_recipe(RECIPE).export


def test_nothing_is_timed_where_nothing_is_measured(toy, model, tmp_path):
    report = run(parse_recipe(RECIPE), model, tmp_path / "out", Options(evaluate=False))
    assert report["exports"]["toy"].keys() == {"result", "lines", "about"} and "a toy's note" not in report["notes"]


@pytest.mark.parametrize(
    ("export", "said"),
    [
        (
            "toy: {mrak: x}",
            "r.yaml:5:9: export.toy.mrak: unknown key; did you mean 'mark'? (known: columns,",
        ),
        ("toy: {columns: 0}", "r.yaml:5:18: export.toy.columns: input should be greater than or equal to 1, not 0"),
        ("toy: 3", "r.yaml:5:8: export.toy: input should be a valid dictionary or instance of Settings, not 3"),
        ("tyo: {}", "r.yaml:5:8: export.tyo: unknown export format 'tyo'; did you mean 'toy'? (known: onnx, toy)"),
        ("[toy]", "r.yaml:5:3: export: an export is written as its format's name, or as {name: {settings}}"),
    ],
)
def test_bad_settings_are_refused_with_their_place(toy, export, said):
    with pytest.raises(InputError) as caught:
        parse_recipe(RECIPE.replace('toy: {mark: "#"}', export), name="r.yaml")
    assert str(caught.value).startswith(said)


def test_a_recipe_may_name_several_and_all_their_mistakes_are_told(toy):
    steps = "steps: [{prune: channels, by: magnitude, remove: 50%}]\n"
    both = parse_recipe(steps + "export: {toy: {}, onnx: {opset: 20}}").export
    assert list(both) == ["toy", "onnx"] and both["onnx"].opset == 20
    with pytest.raises(InputError) as caught:
        parse_recipe(steps + "export: {toy: {loud: 3}, onnx: {opset: 3}}", name="r.yaml")
    assert [line.partition(": ")[0] for line in str(caught.value).splitlines()] == ["r.yaml:2:22", "r.yaml:2:40"]


def test_the_command_writes_it_with_settings_as_flags(toy, model, tmp_path, capsys):
    arguments = ["export", str(model), "--mark", "+", "--to", "toy", "--columns=9", "--loud"]
    assert cli.call([*arguments, "--json"]) == 0
    names = sorted(open_checkpoint(model).tensors)
    assert (model / "toy" / "names.txt").read_text().splitlines() == [f"+{name}"[:9].upper() for name in names]
    assert json.loads(capsys.readouterr().out) == {"folder": str(model / "toy"), "names": len(names)}
    assert cli.call([*arguments, "--no-loud", "--force", "-o", str(tmp_path / "named")]) == 0
    assert "names" in capsys.readouterr().out.lower()
    assert (tmp_path / "named" / "names.txt").read_text().startswith(f"+{names[0]}"[:9])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "graph"], "unknown export format 'graph' (known: onnx, toy); the folder to write is named with -o"),
        (["--to", "toy", "--colums", "3"], "--colums 3: unknown setting; did you mean 'columns'? (known: columns,"),
        (["--to", "toy", "--columns", "0"], "--columns 0: input should be greater than or equal to 1, not 0"),
        (["--to", "toy", "--mark", "["], "--mark [: the value:1:2: "),
        (["graph"], "'graph' is more than the command takes; write compress export MODEL --to FORMAT"),
    ],
)  # fmt: skip
def test_the_command_says_what_it_cannot_do(words, said, toy, model, capsys):
    assert cli.call(["export", str(model), *words]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert sorted(path.name for path in model.iterdir() if path.is_dir()) == []


def test_ls_and_the_schema_know_its_settings(toy, capsys):
    assert cli.call(["ls", "formats", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert listed["toy"]["about"] == "The names of all tensors, one a line."
    assert listed["toy"]["arguments"] == {"mark": "*", "columns": 80, "loud": False}
    schema = json.loads(json.dumps(json_schema()))["properties"]["export"]
    name, settings = schema["anyOf"][0]["anyOf"]
    assert name["enum"] == ["onnx", "toy"]
    assert settings["properties"]["toy"]["properties"]["mark"]["description"] == "Stands in front of every name."
    assert settings["properties"]["onnx"]["properties"]["batch"]["minimum"] == 1


@pytest.mark.slow
def test_a_recipe_without_an_export_imports_no_format():
    code = (
        "import sys; from compress.recipe.read import parse_recipe; "
        "parse_recipe('steps: [{prune: channels, by: magnitude, remove: 50%}]'); "
        "print([name for name in sys.modules if name.startswith(('compress.export', 'compress.onnx'))])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
