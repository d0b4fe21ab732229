"""The tool that examines every architecture: its list, tiny configurations, limits and pages."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest
import transformers

BENCH = Path(__file__).parents[1] / "tools" / "bench"


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)


def test_every_type_of_the_list_is_one_of_transformers():
    from matrix.kind import kinds

    kind = kinds()["transformers"]
    entries = kind.entries()
    assert len(entries) == len({entry.name for entry in entries}) == 552
    assert not [entry for entry in entries if entry.name not in transformers.CONFIG_MAPPING]
    assert sum("onnx" in entry.marks for entry in entries) == 40
    assert kind.rehearsal in {entry.name for entry in entries}
    assert {"onnx"} == {name for entry in entries for name in kind.asked(entry)} - {
        name for entry in entries if "onnx" not in entry.marks for name in kind.asked(entry)
    }


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("llama", {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 1000}),
        ("qwen2_moe", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}),
        ("gemma2", {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}),
        ("vit", {"image_size": 32, "patch_size": 8, "hidden_size": 64}),
        ("hubert", {"conv_dim": [32] * 7}),
        ("voxtral", {"audio_token_id": 3}),
        ("convnext", {"hidden_sizes": [96, 192, 384, 768], "depths": [2, 2, 2, 2]}),
    ],
)
def test_default_configurations_become_tiny(name, wanted):
    from matrix.small import small

    kind = transformers.CONFIG_MAPPING[name]
    made = small(name, kind().to_dict(), 0)
    assert {key: made[key] for key in wanted} == wanted
    assert kind.from_dict(made).to_dict()["model_type"] == name


def test_what_a_type_needs_besides_is_said_of_its_towers_too():
    from matrix.small import small

    made = small("mllama", transformers.MllamaConfig().to_dict(), 0)["vision_config"]
    assert (made["intermediate_layers_indices"], made["hidden_size"]) == ([1], 64)
    text = small("glm4v", transformers.Glm4vConfig().to_dict(), 0)["text_config"]
    assert sum(text["rope_parameters"]["mrope_section"]) == 8
    tower = small("nemotron3_diarization", transformers.Nemotron3DiarizationConfig().to_dict(), 0)["audio_config"]
    assert tower["num_key_value_heads"] == tower["num_attention_heads"] == 4


def test_the_last_level_shrinks_depth_alone():
    from matrix.small import LEVELS, small, smallest

    whole = transformers.LlamaConfig().to_dict()
    made = small("llama", whole, LEVELS[-1])
    assert {key for key in made if made[key] != whole[key]} == {"num_hidden_layers"}

    def refused(level):
        if level < 2:
            raise ValueError(f"not {level}")
        return "built"

    assert smallest(refused) == ("built", 2)
    with pytest.raises(ValueError, match="not 0"):
        smallest(lambda level: refused(min(level, 1)))


@pytest.mark.parametrize(("library", "least", "onnx"), [("timm", 90, 8), ("torchvision", 40, 2)])
def test_lists_of_libraries_have_each_model_once(library, least, onnx):
    from matrix.kind import kinds
    from matrix.listed import line_of

    kind = kinds()[library]
    entries = kind.entries()
    assert len(entries) == len({entry.name for entry in entries}) >= least
    assert sum("onnx" in entry.marks for entry in entries) == onnx
    assert kind.rehearsal in {entry.name for entry in entries}
    assert all(line_of(entry).given().shape[:2] == (2, 3) for entry in entries)


def test_a_module_of_a_library_is_pruned_compared_and_opened_by_its_name(tmp_path, monkeypatch):
    import nets
    from matrix import listed, open_modules, prune_modules

    timm = types.ModuleType("timm")
    timm.is_model, timm.create_model = lambda name: True, lambda name, **given: nets.Mlp(**given)
    monkeypatch.setitem(sys.modules, "timm", timm)
    line = listed.Listed("timm", "mlp", "small", {"wide": 30}, (8,))
    for module in (prune_modules, open_modules):
        monkeypatch.setattr(module, "line_of", lambda entry: line)
    entry, found = listed.Entry("timm", "small", "mlp"), {}
    for stage in (prune_modules.examine, open_modules.reopen):
        stage(entry, tmp_path, lambda **said: found.update(said))
    assert all(found[column] for column in ("built", "traced", "free", "halved", "verified", "coupled", "opened"))
    assert found["after"] < 0.7 * found["before"] and found["off"] < 1e-6 < found["effect"]


STAGE = """
import time
def wait(entry, folder, say):
    say(built=True)
    time.sleep(60)
def grow(entry, folder, say):
    held = bytearray(400_000_000)
    for place in range(0, len(held), 4096):
        held[place] = 1
    time.sleep(60)
def fail(entry, folder, say):
    raise KeyError("lost")
"""


@pytest.mark.parametrize(
    ("function", "ended", "said"),
    [
        ("wait", "took more than 1 s", {"built": True}),
        ("grow", "took more than 0 GB", None),
        ("fail", "done", {"why": "CRASH KeyError: 'lost' (stage.py:12)"}),
    ],
)
def test_a_model_ends_with_its_time_and_memory_and_what_it_said_is_kept(function, ended, said, tmp_path):
    (tmp_path / "stage.py").write_text(STAGE)
    entry = {"kind": "k", "name": "n", "group": "g", "cls": "", "marks": []}
    seconds = 30 if function == "grow" else 1
    job = {"entry": entry, "folder": str(tmp_path), "seconds": seconds, "bytes": 2e8, "rehearse": False}
    done = subprocess.run(
        [sys.executable, "-m", "matrix.nursery", f"stage:{function}"],
        input=json.dumps(job) + "\n",
        env={"PYTHONPATH": f"{BENCH}:{tmp_path}", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert json.loads(done.stdout) == ended, done.stderr
    lines = (tmp_path / "said.jsonl").read_text().splitlines()
    assert (json.loads(lines[-1]) if lines else None) == said


def record(name, **found):
    base = {"kind": "transformers", "name": name, "commit": "abc1234", "seconds": 2.0}
    columns = ("built", "traced", "free", "halved", "verified", "coupled", "opened", "onnx")
    return {**base, "share": 1.0, "pinned": [], **dict.fromkeys(columns, True), **found}


def test_the_pages_count_what_holds_and_say_what_fails_and_what_was_not_run():
    from matrix.kind import kinds
    from matrix.pages import coverage_page, pinned_page

    known = kinds()
    found = {
        "transformers/llama": record("llama"),
        "transformers/gpt2": record("gpt2", opened=False, onnx=False, opened_why="a key is missing"),
        "transformers/opt": record("opt", free=False, share=0.5, pinned=[["an operator is not understood", 0.5]]),
        "transformers/bert": record("bert", traced=False, why="GPT2 has | no rule", share=0.0),
    }
    page = coverage_page(known, found)
    rows = {
        line.split(" |")[0].strip("| "): [cell.strip() for cell in line.split("|")[2:-1]] for line in page.splitlines()
    }
    assert rows["decoders"] == ["3 of 137", "3", "3", "2", "2", "2", "2", "1", "1 of 3", "1 (33%)", "2.0", "abc1234"]
    assert rows["seq2seq"][-1] == "not run"
    assert "- not opened: a key is missing: `gpt2`" in page
    assert "- not free: pinned mostly as an operator is not understood: `opt`" in page
    assert r"- not traced: GPT2 has \| no rule: `bert`" in page
    pinned = pinned_page(known, found)
    assert "| an operator is not understood | 1 | 16.7% |" in pinned
    assert "- `opt`: 50% free; 50% an operator is not understood" in pinned and "`llama`" not in pinned
