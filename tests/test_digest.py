"""The digest of a model follows every byte of it, and is remembered no longer than it is true."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import compress.checkpoint.digest as digest_module
from compress.checkpoint.digest import content_digests
from compress.checkpoint.open import open_checkpoint
from compress.console import switches


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file({"a": torch.arange(1000.0)}, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture
def always_settled(monkeypatch):
    """As if every file had been left alone for long."""
    monkeypatch.setattr(digest_module, "SETTLED", -1e9)


def digest(folder: Path) -> str:
    return open_checkpoint(folder).digest


def edit(file: Path, at: int = -1) -> None:
    """Change one byte in place, and give the file its old time back."""
    before = file.stat()
    with file.open("r+b") as opened:
        opened.seek(at, os.SEEK_END if at < 0 else os.SEEK_SET)
        byte = opened.read(1)[0]
        opened.seek(-1, os.SEEK_CUR)
        opened.write(bytes([byte ^ 1]))
    while file.stat().st_ctime_ns == before.st_ctime_ns:  # the clock's next tick
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_one_byte_of_a_large_tensor(model):
    save_file({"a": torch.zeros(17_500_000)}, model / "model.safetensors")
    before = digest(model)
    edit(model / "model.safetensors", 20_000_000)
    assert digest(model) != before


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300), st.integers(1, 4), st.integers(1, 70), st.data())
def test_every_byte_counts_and_threads_and_blocks_do_not(tmp_path, content, threads, block, data):
    file = tmp_path / "file"

    def of(content: bytes, threads: int = 1, block: int = 1000) -> bytes:
        file.write_bytes(content)
        patch.setattr(digest_module, "BLOCK", block)
        return content_digests([file], threads)[file]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digest_module, "CHUNK", 64)
        expected = of(content)
        assert of(content, threads, block) == expected
        assert of(content + b"\0") != expected
        if content:
            at, bit = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(0, 7))
            edited = bytearray(content)
            edited[at] ^= 1 << bit
            assert of(bytes(edited), threads, block) != expected


def test_chunks_that_change_places(tmp_path, monkeypatch):
    monkeypatch.setattr(digest_module, "CHUNK", 64)
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"a" * 64 + b"b" * 64)
    other.write_bytes(b"b" * 64 + b"a" * 64)
    found = content_digests([one, other])
    assert found[one] != found[other]


def test_a_copy_elsewhere_has_the_same(model, tmp_path):
    shutil.copytree(model, tmp_path / "copy")
    assert digest(tmp_path / "copy") == digest(model)


def test_it_is_remembered_and_reading_is_shown(model, always_settled, monkeypatch, capsys):
    monkeypatch.setattr(digest_module, "PATIENCE", -1)
    monkeypatch.setattr(switches, "quiet", False)
    first = digest(model)
    assert "reading the weights (4.1 kB) for their digest" in capsys.readouterr().err
    assert digest(model) == first
    assert capsys.readouterr().err == ""


def test_what_is_remembered_ends_with_any_change(model, always_settled):
    file = model / "model.safetensors"
    first = digest(model)
    edit(file)
    second = digest(model)
    assert second != first
    os.replace(shutil.copy2(file, model / "copy"), file)
    assert digest(model) == second
    for note in Path(os.environ["COMPRESS_CACHE"], "digests").iterdir():
        note.write_bytes(note.read_bytes()[:-9])
    assert digest(model) == second


def test_a_file_just_written_is_not_remembered(model):
    digest(model)
    assert not Path(os.environ["COMPRESS_CACHE"], "digests").exists()
