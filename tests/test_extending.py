"""docs/extending.md: every part on the page is registered from outside the package, and used by its recipe."""

from __future__ import annotations

import json
import re
import sys
import types
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import zoo
from safetensors.torch import load_file

import compress
from compress import registry
from compress.checkpoint.open import open_checkpoint
from compress.errors import InputError, VerifyError
from compress.pipeline import Options
from compress.recipe.read import parse_recipe

PAGE = (Path(__file__).parent.parent / "docs" / "extending.md").read_text()
LONGEST = 40
"""Lines of an example."""
NAME = "model.embed_tokens.weight"
QUICK = Options(evaluate=False)
CALIBRATE = "calibrate: {data: random, samples: 4, length: 16}\n"


def section(title: str) -> tuple[str, str]:
    """Of a heading of the page: its Python and its recipe."""
    headings = [match.start() for match in re.finditer(r"^## ", PAGE, re.M)] + [len(PAGE)]
    (text,) = (PAGE[a:b] for a, b in pairwise(headings) if PAGE[a:b].startswith(f"## {title}\n"))
    code, recipe = (re.findall(rf"```{language}\n(.*?)```", text, re.S) for language in ("python", "yaml"))
    return "\n".join(code), "\n".join(recipe)


@pytest.fixture
def learn(monkeypatch):
    """Runs the Python of a section as a module of its own; what it registers is forgotten after the test."""

    def run(title: str) -> str:
        for parts in vars(registry).values():
            if isinstance(parts, registry.Registry):
                parts.names()
                monkeypatch.setattr(parts, "_entries", dict(parts._entries))
        code, recipe = section(title)
        module = types.ModuleType(f"example_{len(title)}")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(code, vars(module))
        return CALIBRATE + recipe

    return run


@pytest.fixture
def llama(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    zoo.save("llama", tmp_path / "in")
    return tmp_path / "in"


def test_examples_are_short():
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.S):
        assert len([line for line in code.splitlines() if line.strip()]) <= LONGEST


def test_a_step_kind(learn, llama, tmp_path):
    text = learn("A step kind")
    report = compress.run(parse_recipe(text), llama, tmp_path / "out", QUICK)
    dense, found = load_file(llama / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}
    assert found.keys() == dense.keys() and found[NAME].equal(dense[NAME].bfloat16())
    assert report["after"]["bytes"] < report["before"]["bytes"] / 2
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert [step["kind"] for step in plan["steps"]] == ["prune", "cast"]
    assert plan["steps"][1]["decision"] == {"dtype": "bfloat16"}
    assert any("every tensor is the input's, rounded" in note for note in report["notes"])
    compress.apply(tmp_path / "out" / "plan.json", llama, tmp_path / "again", QUICK)
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert all(again[name].equal(tensor) for name, tensor in found.items())


def test_a_wrong_claim_of_a_step_kind_is_found(learn, llama, tmp_path, monkeypatch):
    text = learn("A step kind")
    kind = registry.steps.get("cast").target
    edit = kind.edit

    def wrong(self, *given):
        made = edit(self, *given)
        produce = made.produce
        object.__setattr__(made, "produce", lambda put: produce(lambda name, tensor: put(name, tensor * 2)))
        return made

    monkeypatch.setattr(kind, "edit", wrong)
    with pytest.raises(VerifyError, match="is not the input's, rounded"):
        compress.run(parse_recipe(text), llama, tmp_path / "out", QUICK)
    assert not (tmp_path / "out").exists()


def test_the_settings_of_a_step_kind_are_the_recipes_schema(learn):
    learn("A step kind")
    with pytest.raises(InputError, match=r"recipe:2:9: steps\.0\.cast: .*'bfloat16' or 'float16', not 'int8'"):
        parse_recipe("steps:\n- cast: int8\n")
    with pytest.raises(InputError, match=r"unknown key; did you mean 'cast'"):
        parse_recipe("steps:\n- castt: bfloat16\n")


def test_a_kind_that_cannot_be_replayed_is_refused(learn, llama, tmp_path, monkeypatch):
    text = learn("A step kind")
    made = compress.pipeline.plan(parse_recipe(text), llama, QUICK)
    monkeypatch.setattr(registry.steps.get("cast").target, "replayable", False)
    with pytest.raises(InputError, match=r"steps\.1: `cast` cannot be executed from a plan"):
        compress.apply(made, llama, tmp_path / "out", QUICK)


def test_what_was_cast_opens(learn, llama, tmp_path):
    text = learn("A step kind")
    compress.run(parse_recipe(text), llama, tmp_path / "out", QUICK)
    assert open_checkpoint(tmp_path / "out").config["dtype"] == "bfloat16"
    import transformers

    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").dtype == torch.bfloat16
