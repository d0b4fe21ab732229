"""The command: exit codes, messages, what is printed where, and that nothing half-written stays."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import zoo

import compress
from compress import cli
from compress.steps import execute

ROOT = Path(__file__).parent.parent
RECIPE = "calibrate: {data: random, samples: 4, length: 16}\nsteps:\n- {prune: channels, by: wanda, remove: 25%}\n"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a recipe `r.yaml` and a model `in`, which is the working directory."""
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    Path("r.yaml").write_text(RECIPE)
    zoo.save("llama", Path("in"))
    return tmp_path / "work"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_prune_says_what_was_written(place, capsys):
    assert cli.call(["r.yaml", "in", "out", "--no-evaluate"]) == 0
    said = capsys.readouterr()
    assert "Parameters" in said.out
    last = said.err.strip().splitlines()[-1]
    assert last.startswith("wrote out: ")
    assert "→" in last
    assert "LlamaForCausalLM.from_pretrained('out')" in last
    assert cli.call(["report", "out", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "in"


def test_json_and_quiet(place, capsys):
    assert cli.call(["r.yaml", "in", "out", "--no-evaluate", "--json", "-q"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["after"]["params"] < json.loads(said.out)["before"]["params"]
    assert said.err == ""


def test_dry_run_writes_nothing_and_shows_the_plan(place, capsys):
    assert cli.call(["r.yaml", "in", "out", "--dry-run", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["steps"][0]["opens_with"]["transformers"] is True
    assert names(place) == ["in", "r.yaml"]


def test_plan_and_apply(place, capsys):
    assert cli.call(["plan", "r.yaml", "in", "--to", "p.json"]) == 0
    assert cli.call(["apply", "p.json", "in", "out", "--no-evaluate"]) == 0
    assert (
        json.loads(Path("out/plan.json").read_text())["steps"][0]["decision"]["kept"]
        == json.loads(Path("p.json").read_text())["steps"][0]["decision"]["kept"]
    )
    assert cli.call(["plan", "r.yaml", "in", "--to", "p.json"]) == 2
    assert "--force" in capsys.readouterr().err


def test_set(place):
    assert cli.call(["r.yaml", "in", "out", "--no-evaluate", "--set", "steps.0.remove=50%", "--set", "seed=3"]) == 0
    assert json.loads(Path("out/config.json").read_text())["intermediate_size"] == 24
    assert "seed: 3" in Path("out/recipe.yaml").read_text()


def test_inspect(place, capsys):
    assert cli.call(["inspect", "in", "--json"]) == 0
    families = json.loads(capsys.readouterr().out)["families"]
    kinds = {family["kind"] for family in families}
    assert {"heads", "channels", "hidden", "layers", "vocab"} <= kinds
    assert any(family["pinned"] for family in families)
    assert cli.call(["inspect", "in"]) == 0
    assert "channels" in capsys.readouterr().out


@pytest.mark.parametrize(
    "what",
    [
        "criteria",
        "allocators",
        "repairs",
        "sources",
        "statistics",
        "rules",
        "token_scores",
        "token_selects",
        "token_residuals",
        "steps",
        "recipes",
        "schema",
        None,
    ],
)
def test_ls(what, capsys):
    assert cli.call(["ls", *([what] if what else []), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
    assert cli.call(["ls", *([what] if what else [])]) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["r.yaml", "in", "in", "--no-evaluate"], 2, "--force"),
        (["nothing.yaml", "in", "out"], 2, "nothing.yaml"),
        (["r.yaml", "nowhere/at/all", "out"], 2, "no such folder"),
        (["r.yaml", "in", "out", "--bogus"], 2, "--bogus"),
        (["r.yaml", "in"], 2, "OUT"),
        (["ls", "critera"], 2, "critera"),
        (["evla", "in"], 2, "no command 'evla'; did you mean 'eval'? (a recipe is a .yaml file or one of: a"),
        (["flap-21", "in", "out"], 2, "did you mean 'flap-20'?"),
        (["prune", "r.yaml", "in", "out"], 2, "no command 'prune': pruning needs none, write compress RECIPE IN OUT"),
        (["run", "r.yaml"], 2, "write compress RECIPE IN OUT"),
        (["r.yaml", "in", "out", "more"], 2, "'more' is more than the command takes; write compress RECIPE MODEL OUT"),
        (["plan", "r.yaml"], 2, "MODEL is missing; write compress plan RECIPE MODEL"),
        (["compare", "r.yaml", "in"], 2, "--out is missing"),
        (["r.yaml", "in", "out", "--device", "nonsense"], 2, "--device"),
        (["r.yaml", "in", "out", "--set", "steps.0.by=wnda"], 2, "did you mean 'wanda'"),
        (["r.yaml", "in", "out", "--set", "steps.0.until=30%"], 2, "one budget"),
        (["r.yaml", "in", "out", "--set", "steps.0.remove=99%"], 4, "remain"),
        (["report", "in"], 2, "not written by compress"),
        (["apply", "r.yaml", "in", "out"], 2, "not a plan"),
    ],
)
def test_mistakes(arguments, code, words, place, capsys):
    assert cli.call(arguments) == code
    said = capsys.readouterr()
    assert words in said.err
    assert "Traceback" not in said.err
    assert said.out == ""
    assert names(place) == ["in", "r.yaml"]


def test_a_model_that_is_not_understood(place, capsys):
    config = json.loads(Path("in/config.json").read_text())
    Path("in/config.json").write_text(json.dumps({**config, "architectures": ["NoSuchModel"]}))
    assert cli.call(["r.yaml", "in", "out"]) == 3
    assert "NoSuchModel" in capsys.readouterr().err


def test_a_config_that_needs_remote_code(place, capsys):
    config = json.loads(Path("in/config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}
    Path("in/config.json").write_text(json.dumps(config))
    assert cli.call(["r.yaml", "in", "out"]) == 2
    assert "--trust-remote-code" in capsys.readouterr().err


def test_a_truncated_shard(place, capsys):
    file = Path("in/model.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    assert cli.call(["r.yaml", "in", "out"]) == 2
    assert "truncated" in capsys.readouterr().err


def test_an_interrupt_leaves_nothing(place, capsys, monkeypatch):
    def interrupted(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(execute, "verify", interrupted)
    assert cli.call(["r.yaml", "in", "out"]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert names(place) == ["in", "r.yaml"]


@pytest.mark.slow
def test_a_signal_to_the_process(place):
    code = "import sys, time; from compress import cli\nfrom compress.steps import execute\n"
    code += "execute.verify = lambda *a, **k: (print('cut', flush=True), time.sleep(600))\ncli.main(sys.argv[1:])"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, "r.yaml", "in", "out", "-q"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "cut\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "interrupted" in said
    assert names(place) == ["in", "r.yaml"]


@pytest.mark.parametrize(
    ("recipe", "listed"),
    [
        ("{prune: channels, by: wanda, remove: 25%}", "calibrate · decide · cut · verify"),
        ("{prune: channels, by: magnitude, remove: 25%}", "decide · cut · verify"),
        ("{prune: channels, by: wanda, remove: 25%, propagate: pruned}", "calibrate · decide · cut · verify"),
        ("{prune: weights, by: wanda, remove: 50%}", "decide · zero · verify"),
    ],
)
def test_every_stage_that_is_listed_is_announced(recipe, listed, place, capsys):
    Path("r.yaml").write_text(f"calibrate: {{data: random, samples: 4, length: 16}}\nsteps: [{recipe}]\n")
    assert cli.call(["r.yaml", "in", "out", "--no-evaluate"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"compress {compress.__version__}: r.yaml → in → out"
    assert f"stages: read · {listed} · report" in said
    count = listed.count("·") + 3
    announced = [line.partition("]")[0] for line in said if line.startswith("[")]
    assert announced == [f"[{number}/{count}" for number in range(1, count + 1)]


@pytest.mark.slow
def test_the_first_line_comes_before_torch():
    code = (
        "import sys; from compress import cli, console; say = console.console.print\n"
        "console.console.print = lambda *a, **k: (say(*a, **k), say('torch' in sys.modules))\n"
        "cli.call(['flap-20', 'nowhere/at/all', 'out'])"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    said = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stderr
    assert said.splitlines()[:2] == [f"compress {compress.__version__}: flap-20 → nowhere/at/all → out", "False"]


def test_version_is_the_packages_own(capsys):
    assert cli.call(["--version"]) == 0
    assert capsys.readouterr().out.strip() == compress.__version__


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from compress import cli; code = cli.call(['--help']); "
        "print([m for m in ('torch', 'transformers', 'numpy', 'pydantic') if m in sys.modules]); sys.exit(code)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"
    assert "RECIPE" in done.stdout
