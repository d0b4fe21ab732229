"""The pages in docs/: tables that are made from the code are up to date, and every block of them runs."""

import importlib.util
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import zoo

from compress import cli
from compress.recipe.read import parse_recipe

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs"
OURS = ("auto", "concepts", "methods", "recipes", "troubleshooting")
YAML = re.compile(r"```yaml\n(.*?)```", re.DOTALL)
SAID = re.compile(r"```console\n(.*?)```", re.DOTALL)
COMMAND = re.compile(r"^    (compress .*)$", re.MULTILINE)
MINE = "steps:\n  - {prune: [heads, channels], by: magnitude, remove: 25%}\n"


def blocks(pattern):
    """(page, block) of every one of our pages."""
    return [
        pytest.param(found, id=f"{page}-{number}", marks=pytest.mark.slow if "$ compress export" in found else ())
        for page in OURS
        for number, found in enumerate(pattern.findall((PAGES / f"{page}.md").read_text()))
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What the pages' commands speak of: models, good and bad, and recipes."""
    there = tmp_path_factory.mktemp("pages")
    zoo.save("llama", there / "IN")
    for name, changes in {
        "quantised": {"quantization_config": {"quant_method": "awq"}},
        "unknown": {"architectures": ["NewForCausalLM"]},
        "other-shapes": {"intermediate_size": 40},
    }.items():
        shutil.copytree(there / "IN", there / name)
        config = json.loads((there / name / "config.json").read_text())
        (there / name / "config.json").write_text(json.dumps({**config, **changes}))
    (there / "config-only").mkdir()
    shutil.copy(there / "IN" / "config.json", there / "config-only")
    shutil.copytree(there / "IN", there / "truncated")
    whole = (there / "truncated" / "model.safetensors").read_bytes()
    (there / "truncated" / "model.safetensors").write_bytes(whole[:-1000])
    (there / "taken").mkdir()
    (there / "taken" / "thesis.txt").write_text("years of work")
    (there / "my.yaml").write_text(MINE)
    (there / "typo.yaml").write_text("steps:\n  - {prune: channel, by: magnitud, remove: 20}\n")
    return there


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    """A copy of it as the working directory."""
    shutil.copytree(made, tmp_path / "work")
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture(scope="module")
def docs():
    """tools/docs.py."""
    spec = importlib.util.spec_from_file_location("docs_tool", ROOT / "tools" / "docs.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def test_tables_are_what_the_code_says(docs):
    assert list(docs.stale()) == [], "run python tools/docs.py"


def test_a_stale_table_is_found(docs, tmp_path):
    page = (PAGES / "methods.md").read_text()
    (tmp_path / "methods.md").write_text(page.replace("2306.11695", "2306.99999"))
    assert docs.stale(tmp_path) == {tmp_path / "methods.md": page}


def test_every_part_and_every_recipe_stands_in_a_table():
    from compress import registry
    from compress.files.shipped import names

    page, tokens = ((PAGES / name).read_text() for name in ("methods.md", "visual-tokens.md"))
    kinds = (registry.criteria, registry.allocators, registry.ratios, registry.repairs, registry.sources)
    missing = [name for kind in kinds for name in kind.names() if f"| `{name}` |" not in page]
    kinds = (registry.token_scores, registry.token_selects, registry.token_residuals)
    missing += [name for kind in kinds for name in kind.names() if f"| `{name}` |" not in tokens]
    presets = [name for name in names() if name.startswith("tokens/")]
    missing += [name for name in presets if f"| `{name.removeprefix('tokens/')}` |" not in tokens]
    assert missing + [name for name in names() if name not in presets and f"| `{name}` |" not in page] == []


@pytest.mark.parametrize("text", blocks(YAML))
def test_recipes_are_read(text):
    assert parse_recipe(text).steps


@pytest.mark.parametrize("command", blocks(COMMAND))
def test_commands_run(command, place, capsys):
    assert cli.call(shlex.split(command)[1:]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("block", blocks(SAID))
def test_messages_are_those_that_are_shown(block, place, capsys):
    command, *said, code = block.strip().splitlines()
    assert command.startswith("$ compress ") and code.startswith("exit code ")
    assert cli.call(shlex.split(command)[2:]) == int(code.removeprefix("exit code "))
    shown = " ".join(capsys.readouterr().err.split())
    parts = [" ".join(part.split()) for part in " ".join(said).split("…")]
    assert re.search(".*".join(map(re.escape, parts)), shown), shown


@pytest.mark.parametrize("page", OURS)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", (PAGES / f"{page}.md").read_text()):
        if not target.startswith("http"):
            assert (PAGES / target).exists() or target == "benchmarks.md", target
