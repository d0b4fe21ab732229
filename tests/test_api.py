"""compress.run, plan, apply, inspect, compare, load: each on a tiny model; docs/api.md as it stands there."""

import dataclasses
import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys
import typing
from pathlib import Path

import moe
import pytest
import torch
import zoo

import compress
from compress.api.options import OptionFields
from compress.errors import InputError, ModelError
from compress.recipe.read import read_recipe
from compress.runtime import attach

FUNCTIONS = ("apply", "auto", "compare", "inspect", "load", "plan", "run")
THIRTY = ["steps.0.remove=30%"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The working directory, with the model `my-model`."""
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    zoo.save("llama", Path("my-model"))
    return tmp_path / "work"


@pytest.mark.slow
def test_run_writes_what_the_same_options_in_one_object_write(place):
    report = compress.run("magnitude-20", "my-model", "one", set=THIRTY, evaluate=False)
    assert isinstance(report, dict) and report == json.loads(Path("one/report.json").read_text())
    assert report["after"]["params"] < report["before"]["params"] and "perplexity" not in report["after"]
    options = compress.Options(evaluate="quick", device="cpu")
    recipe = read_recipe("magnitude-20", THIRTY)
    compress.run(recipe, Path("my-model"), Path("two"), options, evaluate=False)
    assert Path("one/model.safetensors").read_bytes() == Path("two/model.safetensors").read_bytes()
    assert options.evaluate == "quick"


def test_a_plan_is_what_run_does_and_apply_executes_it(place):
    compress.run("magnitude-20", "my-model", "run", evaluate=False)
    plan = compress.plan("magnitude-20", "my-model")
    kept = json.loads(Path("run/plan.json").read_text())["steps"][0]["decision"]["kept"]
    assert plan.steps[0].decision["kept"] == kept
    report = compress.apply(plan, "my-model", "applied", evaluate=False)
    assert report is not None and report["after"]["params"] == plan.after["params"]
    assert Path("applied/model.safetensors").read_bytes() == Path("run/model.safetensors").read_bytes()


def test_inspect_tells_of_every_family(place):
    found = compress.inspect("my-model")
    stock = zoo.stock("llama", Path("my-model"))
    assert found.architecture == "LlamaForCausalLM" and found.blocks == 3
    assert found.parameters == sum(p.numel() for p in stock.parameters())
    channels = [family for family in found.families if family.kind == "channels"]
    mlp = sum(p.numel() for p in stock.model.layers[0].mlp.parameters())
    assert [(one.layer, one.count, one.parameters, one.pinned) for one in channels] == [
        (layer, 48, mlp, None) for layer in range(3)
    ]


def test_compare_takes_names_and_returns_what_it_writes(place):
    found = compress.compare(
        ["magnitude-20", "random-20"], "my-model", "out", sweep=["steps.0.remove=10%,20%"], keep=False, evaluate=False
    )
    assert [row["name"] for row in found["rows"]] == [
        f"{name}-20-remove={share}%" for name in ("magnitude", "random") for share in (10, 20)
    ]
    assert found == json.loads(Path("out/compare.json").read_text()) and Path("out/compare.html").exists()


def test_load_gives_the_stock_model(place):
    model = compress.load("my-model")
    assert type(model).__name__ == "LlamaForCausalLM" and not model.training
    ids = torch.arange(12).view(1, 12)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, zoo.stock("llama", Path("my-model"))(ids).logits)
    model.to(torch.bfloat16).save_pretrained("half")  # pyright: ignore[reportArgumentType]
    assert compress.load("half").dtype == torch.bfloat16
    assert compress.load("half", dtype=torch.float32).dtype == torch.float32


def test_load_opens_layers_of_unlike_widths_without_trust(place):
    compress.run(
        "magnitude-20", "my-model", "out", set=["steps.0.allocate=global", "steps.0.widths=per-layer"], evaluate=False
    )
    model = compress.load("out")
    assert len({tuple(layer.mlp.down_proj.weight.shape) for layer in model.model.layers}) > 1
    assert type(model).__module__ == "compress.model.modeling_compress"


def test_load_obeys_runtime_rules_unless_told_not_to(place):
    dense = moe.save("mixtral", Path("mixture"))
    compress.run("skip-experts", dense, "out", set=["calibrate.data=random", "calibrate.length=16"], evaluate=False)
    ids = moe.tokens()
    with torch.no_grad():
        found = compress.load("out")(ids).logits
        plain = compress.load("out", rules=False)(ids).logits
        stock = moe.stock("mixtral", Path("out"))
        assert torch.equal(plain, stock(ids).logits)
        with attach(stock):
            assert torch.equal(found, stock(ids).logits)
    assert not torch.allclose(found, plain, atol=1e-4)
    config = json.loads(Path("out/config.json").read_text())
    config["compress"]["version"] = 9
    Path("out/config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"out/config\.json: compress\.version: is 9"):
        compress.load("out")


def test_mistakes_are_said(place):
    with pytest.raises(InputError, match="did you mean 'flap-20'"):
        compress.run("flap20", "my-model", "out")
    with pytest.raises(TypeError, match="evaluated"):
        compress.run("flap-20", "my-model", "out", evaluated=False)  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match="set: changes a recipe that is read here"):
        compress.plan(read_recipe("magnitude-20"), "my-model", set=THIRTY)
    with pytest.raises(InputError, match="no such folder"):
        compress.load("./nothing")
    with pytest.raises(AttributeError, match="no attribute 'shrink'"):
        compress.shrink  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.slow
def test_the_page_of_the_api_runs(place, capsys):
    text = (Path(__file__).parent.parent / "docs" / "api.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    said = compress.console.switches.quiet
    names: dict[str, object] = {}
    try:
        for number, block in enumerate(blocks):
            exec(compile(block, f"docs/api.md, block {number}", "exec"), names)
    finally:
        compress.console.switch(quiet=said)
    assert len(blocks) >= 8 and "LlamaForCausalLM" in capsys.readouterr().out
    assert all(f"compress.{name}(" in text for name in FUNCTIONS)


def test_every_function_is_documented_and_typed():
    for name in FUNCTIONS:
        function = getattr(compress, name)
        parameters = inspect.signature(function).parameters
        hints = typing.get_type_hints(function, {**vars(sys.modules[function.__module__]), **_only_for_types()})
        assert set(hints) == {*parameters, "return"}
        for part in (*(f"        {key}: " for key in parameters if key != "fields"), "Returns:", "Raises:"):
            assert part in function.__doc__, (name, part)


def _only_for_types():
    import transformers

    return {"torch": torch, "nn": torch.nn, "PreTrainedModel": transformers.PreTrainedModel}


def test_keyword_arguments_are_the_fields_of_options():
    wanted = typing.get_type_hints(compress.Options)
    assert typing.get_type_hints(OptionFields) == wanted
    assert list(wanted) == [field.name for field in dataclasses.fields(compress.Options)]


def test_no_module_takes_the_name_of_a_function():
    """Importing a submodule puts it into its package under its name, in the place of a function that was there."""
    for module in pkgutil.iter_modules(compress.__path__):
        assert module.name not in FUNCTIONS
    for package in ("compress.api", "compress.runtime"):
        names = [module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__)]
        assert not set(names) & {*FUNCTIONS, "attach"}


def test_importing_compress_imports_nothing_heavy():
    said = "import compress, sys; print(sorted({'torch', 'pydantic', 'numpy', 'rich'} & {*sys.modules}), dir(compress))"
    output = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True).stdout
    assert output.startswith("[] ") and all(f"'{name}'" in output for name in (*FUNCTIONS, "Options", "runtime"))
