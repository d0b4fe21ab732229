"""Kept statistics are believed only as they were written; a cache that cannot be written says so."""

import errno
import io
import json
from pathlib import Path

import pytest
import torch
import zoo
from safetensors.torch import load_file, save_file

from compress.calibrate.cache import Stats
from compress.calibrate.collect import collect
from compress.console import switches
from compress.data.sources import docs
from compress.errors import InputError
from compress.pipeline import Options, run
from compress.recipe.read import parse_recipe

KEY = "model.layers.0.mlp.down_proj.weight"
NEEDS = {"input_norm": {KEY}}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(switches, "quiet", True)
    return tmp_path / "cache"


def swapped(raw):
    """The value's halves."""
    start = 8 + int.from_bytes(raw[:8], "little")
    middle = start + (len(raw) - start) // 2
    return raw[:start] + raw[middle:] + raw[start:middle]


def nan(raw):
    return raw[:-4] + b"\xff\xff\xff\x7f"


def with_header(**changes):
    def changed(raw):
        start = 8 + int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8:start])
        header["value"].update(changes)
        made = json.dumps(header).encode()
        return len(made).to_bytes(8, "little") + made + raw[start:]

    return changed


def halved(raw):
    start = 8 + int.from_bytes(raw[:8], "little")
    count = (len(raw) - start) // 8
    return with_header(shape=[count], data_offsets=[0, 4 * count])(raw[: start + 4 * count])


DAMAGES = {
    "swapped halves": swapped,
    "NaN": nan,
    "half as many": halved,
    "another shape": lambda raw: with_header(shape=[1, (len(raw) - 8 - int.from_bytes(raw[:8], "little")) // 4])(raw),
    "another dtype": with_header(dtype="I32"),
    "shape of text": with_header(shape="x"),
    "negative shape": with_header(shape=[-1, -2]),
    "cut short": lambda raw: raw[:20],
    "cut by a byte": lambda raw: raw[:-1],
    "zeros": lambda raw: bytes(len(raw)),
    "empty": lambda raw: b"",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_statistic_is_gathered_again(damage, tmp_path, cache, capsys):
    checkpoint, batches, graph = zoo.save("llama", tmp_path), zoo.batches("llama"), zoo.graph("llama")
    value = collect(checkpoint, graph, NEEDS, batches, data_key="a")["input_norm"][KEY]
    [file] = cache.rglob("*.safetensors")
    file.write_bytes(damage(file.read_bytes()))
    again = collect(checkpoint, graph, NEEDS, batches, data_key="a")
    assert torch.equal(again["input_norm"][KEY], value)
    assert f"{file}: damaged, so this statistic is gathered again" in capsys.readouterr().err
    collect(checkpoint, graph, NEEDS, batches, data_key="a")
    assert "damaged" not in capsys.readouterr().err


def test_one_statistic_is_not_taken_for_another(tmp_path):
    stats = Stats(tmp_path / "some")
    stats.put("input_norm", "a", torch.ones(3))
    stats.put("input_norm", "b", torch.zeros(3))
    one, other = sorted((tmp_path / "some").rglob("*.safetensors"))
    other.write_bytes(one.read_bytes())
    assert Stats(tmp_path / "some").find("input_norm", ["a", "b"]) == {"a"}
    with pytest.raises(InputError, match="damaged while it was in use"):
        stats["input_norm"]["b"]


def test_a_file_is_an_ordinary_one(cache):
    stats = Stats(cache / "some")
    for value in (torch.arange(6.0).reshape(2, 3).T, torch.tensor(2.0), torch.zeros(0, 4)):
        stats.put("input_norm", "a", value)
        assert torch.equal(stats["input_norm"]["a"], value)
        [file] = cache.rglob("*.safetensors")
        assert torch.equal(load_file(file)["value"], value)


def test_a_file_without_a_checksum_is_not_believed(cache):
    stats = Stats(cache / "some")
    stats.put("input_norm", "a", torch.ones(3))
    [file] = cache.rglob("*.safetensors")
    save_file({"value": torch.ones(3)}, file, {"key": "a"})
    assert stats.find("input_norm", ["a"]) == set()


@pytest.fixture
def full_disk(monkeypatch):
    """Whatever is opened to be written as bytes can be made, but takes none."""

    class Full(io.FileIO):
        def write(self, data, /):
            raise OSError(errno.ENOSPC, "No space left on device")

    opened = Path.open
    monkeypatch.setattr(
        Path,
        "open",
        lambda self, mode="r", *args, **more: Full(self, mode) if mode == "wb" else opened(self, mode, *args, **more),
    )


def left(cache):
    return [path for path in cache.rglob("*") if path.is_file()]


FULL = "the disk of the cache is full; make room there, or set COMPRESS_CACHE"


def test_a_full_disk_under_statistics(tmp_path, cache, full_disk):
    recipe = "calibrate: {data: random, samples: 2, length: 16}\nsteps:\n- {prune: [channels], by: wanda, remove: 25%}"
    zoo.save("llama", tmp_path / "llama")
    with pytest.raises(InputError, match=rf"^{cache}: {FULL}"):
        run(parse_recipe(recipe), tmp_path / "llama", tmp_path / "out", Options(evaluate=False))
    assert left(cache) == [] and not (tmp_path / "out").exists()


def test_a_full_disk_under_the_harvest(cache, full_disk, monkeypatch):
    monkeypatch.setattr(docs, "_python_files", lambda: iter([Path(docs.__file__)]))
    with pytest.raises(InputError, match=rf"^{cache}: {FULL}"):
        docs.harvest()
    assert left(cache) == []


@pytest.mark.parametrize("where", ["file", "file/below", "/proc/x"])
def test_a_cache_that_cannot_be(where, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / where))
    zoo.save("llama", tmp_path / "llama")
    recipe = "steps:\n- {prune: weights, by: magnitude, remove: 50%}"
    with pytest.raises(InputError, match=rf"^{tmp_path / where}: the folder of the cache .*set COMPRESS_CACHE"):
        run(parse_recipe(recipe), tmp_path / "llama", tmp_path / "out", Options(evaluate=False))
