"""An input that changes during a run gives an error, never a mixture of two models."""

import json
import os
import shutil

import pytest
import torch
import zoo
from safetensors.torch import load_file, save_file

import compress.pipeline
import compress.steps.delta.extract
import compress.steps.delta.fold
from compress import pipeline
from compress.checkpoint.open import open_checkpoint
from compress.errors import InputError
from compress.pipeline import Options, plan, run
from compress.recipe.read import parse_recipe
from compress.steps.delta.fold import apply_delta

QUICK = Options(evaluate=False)
CHANNELS = "- {prune: [channels], by: magnitude, remove: 25%}\n"
HEADS = "- {prune: [heads], by: magnitude, remove: 50%}\n"


@pytest.fixture
def llama(tmp_path):
    zoo.save("llama", tmp_path / "llama")
    return tmp_path / "llama"


def replace(folder):
    """Another model's weights, as large, put in place as careful programs do."""
    file = folder / "model.safetensors"
    save_file({name: 0.5 * tensor for name, tensor in load_file(file).items()}, folder / "new", {"format": "pt"})
    os.replace(folder / "new", file)


def rewrite(folder):
    file = folder / "model.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)


def edit(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rope_theta": 500000.0}))


CHANGES = [
    (replace, "model.safetensors: changed while it was being read; the result would be a mixture"),
    (rewrite, "model.safetensors: changed while it was being read"),
    (edit, "config.json: changed while it was being read"),
    (shutil.rmtree, "config.json: was removed while it was being read"),
    (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors: was removed"),
]


def steps(text=CHANNELS):
    return parse_recipe(f"calibrate: {{data: random, samples: 2, length: 16}}\nsteps:\n{text}")


def before(monkeypatch, place, name, act):
    """Do `act` once, just before the function `name` of the module `place` is called."""
    original, acts = getattr(place, name), [act]

    def hooked(*args, **kwargs):
        while acts:
            acts.pop()()
        return original(*args, **kwargs)

    monkeypatch.setattr(place, name, hooked)


@pytest.mark.slow
@pytest.mark.parametrize(("change", "said"), CHANGES)
@pytest.mark.parametrize(("place", "name"), [(pipeline, "execute"), (compress.pipeline, "write_report")])
def test_a_run(change, said, place, name, llama, tmp_path, monkeypatch):
    before(monkeypatch, place, name, lambda: change(llama))
    with pytest.raises(InputError, match=said):
        run(steps(), llama, tmp_path / "out", QUICK)
    assert not (tmp_path / "out").exists()


def test_a_plan(llama, monkeypatch):
    before(monkeypatch, pipeline, "execute", lambda: replace(llama))
    with pytest.raises(InputError, match="changed while it was being read"):
        plan(steps(), llama, QUICK)


def test_what_an_earlier_step_wrote(llama, tmp_path, monkeypatch):
    original, calls = pipeline.execute, []

    def second(work, *rest):
        calls.append(work.source.checkpoint.folder)
        done = original(work, *rest)
        if len(calls) == 2:
            replace(calls[1])
        return done

    monkeypatch.setattr(pipeline, "execute", second)
    with pytest.raises(InputError, match=r"step-1/model.safetensors: changed while it was being read"):
        run(steps(CHANNELS + HEADS), llama, tmp_path / "out", QUICK)


def test_a_side_file_that_is_lost(llama, tmp_path, monkeypatch):
    (llama / "vocab.txt").write_text("a b")
    before(monkeypatch, pipeline, "execute", (llama / "vocab.txt").unlink)
    with pytest.raises(InputError, match=r"vocab\.txt: was removed while it was being read"):
        run(steps(), llama, tmp_path / "out", QUICK)


@pytest.mark.parametrize("which", ["llama", "tuned"])
@pytest.mark.parametrize(("change", "said"), CHANGES)
def test_a_delta(which, change, said, llama, tmp_path, monkeypatch):
    shutil.copytree(llama, tmp_path / "tuned")
    rewrite(tmp_path / "tuned")
    recipe = steps(f"- {{prune: delta, base: '{llama}', by: dare, remove: 50%}}")
    before(monkeypatch, compress.steps.delta.extract, "find_divisors", lambda: change(tmp_path / which))
    with pytest.raises(InputError, match=said):
        run(recipe, tmp_path / "tuned", tmp_path / "delta", QUICK)
    assert not (tmp_path / "delta").exists()


@pytest.mark.parametrize("which", ["llama/model", "delta/delta"])
def test_applying_a_delta(which, llama, tmp_path, monkeypatch):
    shutil.copytree(llama, tmp_path / "tuned")
    rewrite(tmp_path / "tuned")
    recipe = steps(f"- {{prune: delta, base: '{llama}', by: dare, remove: 50%}}")
    run(recipe, tmp_path / "tuned", tmp_path / "delta", QUICK)
    file = tmp_path / f"{which}.safetensors"
    shutil.copy(file, tmp_path / "copy")
    before(monkeypatch, compress.steps.delta.fold, "track", lambda: os.replace(tmp_path / "copy", file))
    with pytest.raises(InputError, match=f"{which}.safetensors: changed while it was being read"):
        apply_delta(llama, tmp_path / "delta", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_header_that_changes_under_the_same_stamp(llama):
    opened, file = open_checkpoint(llama), llama / "model.safetensors"
    stat = file.stat()
    file.write_bytes(file.read_bytes().replace(b"q_proj", b"r_proj"))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(InputError, match="changed while it was being read"):
        opened.check_unchanged()


def test_a_pickle_that_becomes_shorter(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    file = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.ones(100_000), "b": torch.ones(3)}, file)
    opened = open_checkpoint(tmp_path, allow_pickle=True)
    os.truncate(file, 5000)  # read through a mapping, this would end the process
    with pytest.raises(InputError, match=r"pytorch_model.bin: ended early"):
        opened.read("a")


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_views_and_shared_storage(tmp_path, zipped):
    (tmp_path / "config.json").write_text("{}")
    whole = torch.arange(24.0).reshape(4, 6)
    stored = {
        "whole": whole,
        "turned": whole.T,
        "part": whole[1:3, ::2],
        "row": whole[2],
        "one": torch.tensor(3),
        "none": torch.zeros(0, 4),
        "spread": torch.ones(2, 1, dtype=torch.bfloat16).expand(2, 5),
        "parameter": torch.nn.Parameter(torch.ones(3)),
    }
    torch.save(stored, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    opened = open_checkpoint(tmp_path, allow_pickle=True)
    for name, tensor in stored.items():
        found = opened.read(name)
        assert torch.equal(found, tensor) and found.is_contiguous() and found.dtype == tensor.dtype, name
