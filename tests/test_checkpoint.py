"""Opening a checkpoint: what stock loaders open, opens; what is damaged is named, with its cure."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from compress.checkpoint.header import DTYPES
from compress.checkpoint.open import Checkpoint, open_checkpoint, open_tensors
from compress.errors import InputError

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "embed.weight": torch.randn(11, 8, generator=generator).bfloat16(),
        "norm.weight": torch.randn(8, generator=generator),
        "ids": torch.arange(3),
        "flag": torch.tensor(True),
        "none": torch.zeros(0, 4),
    }


@pytest.fixture
def single(tmp_path: Path) -> Path:
    """One safetensors file, and the files that usually lie beside it."""
    folder = tmp_path / "single"
    for name in (".cache/x", "1_Pooling/config.json", "2_Dense/model.safetensors", "onnx/model.onnx", "tokenizer.json",
                 "vocab/spiece.model", "training_args.bin", "model.gguf", "modeling.py"):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    (folder / "config.json").write_text('{"model_type": "llama"}')
    save_file(tensors(), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """Two shards and their index."""
    folder = tmp_path / "sharded"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    stored = tensors()
    first = {name: stored[name] for name in ("embed.weight", "ids")}
    second = {name: tensor for name, tensor in stored.items() if name not in first}
    save_file(first, folder / FIRST)
    save_file(second, folder / SECOND)
    weight_map = {name: FIRST if name in first else SECOND for name in stored}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def refused(folder: Path | str, **options: bool) -> str:
    with pytest.raises(InputError) as caught:
        open_checkpoint(folder, **options)  # pyright: ignore[reportArgumentType]
    assert caught.value.exit_code == 2
    return str(caught.value)


def assert_whole(checkpoint: Checkpoint) -> None:
    stored = tensors()
    assert set(checkpoint.tensors) == set(stored)
    for name, tensor in stored.items():
        spec, read = checkpoint.tensors[name], checkpoint.read(name)
        assert (spec.dtype, spec.shape, spec.bytes) == (tensor.dtype, tuple(tensor.shape), tensor.nbytes)
        assert read.dtype == tensor.dtype and torch.equal(read, tensor)
    assert checkpoint.bytes == sum(tensor.nbytes for tensor in stored.values())


def test_one_file(single: Path) -> None:
    checkpoint = open_checkpoint(str(single))
    assert_whole(checkpoint)
    assert checkpoint.config == {"model_type": "llama"} and checkpoint.folder == single
    beside = ["1_Pooling/config.json", "2_Dense/model.safetensors", "tokenizer.json"]
    assert [str(file.relative_to(single)) for file in checkpoint.side_files] == beside
    assert [str(file.relative_to(single)) for file in checkpoint.staying] == ["modeling.py", "vocab/spiece.model"]
    trusted = open_checkpoint(single, trust_remote_code=True, include=["vocab"])
    more = ["modeling.py", "tokenizer.json", "vocab/spiece.model"]
    assert [str(file.relative_to(single)) for file in trusted.side_files] == [*beside[:2], *more]


def test_shards(sharded: Path) -> None:
    assert_whole(open_checkpoint(sharded))
    assert open_checkpoint(sharded).side_files == []


def test_what_is_read_is_ours_to_change(single: Path) -> None:
    checkpoint = open_checkpoint(single)
    checkpoint.read("norm.weight").zero_()
    assert_whole(checkpoint)


def test_every_dtype_of_the_format_is_read(tmp_path: Path) -> None:
    stored = {
        name: torch.ones(2, 3).to(dtype) for name, dtype in DTYPES.items() if "FNUZ" not in name and name != "C64"
    }
    save_file(stored, tmp_path / "model.safetensors")
    checkpoint = open_tensors(tmp_path / "model.safetensors")
    for name, tensor in stored.items():
        assert torch.equal(checkpoint.read(name).view(torch.uint8), tensor.view(torch.uint8))


def test_the_digest_follows_the_content(single: Path) -> None:
    digest = open_checkpoint(single).digest
    assert open_checkpoint(single).digest == digest
    save_file({**tensors(), "norm.weight": tensors()["norm.weight"] + 1}, single / "model.safetensors")
    assert open_checkpoint(single).digest != digest
    save_file(tensors(), single / "model.safetensors", metadata={"format": "pt"})
    assert open_checkpoint(single).digest == digest
    (single / "config.json").write_text('{"model_type": "mistral"}')
    assert open_checkpoint(single).digest != digest


def test_missing_shard(sharded: Path) -> None:
    (sharded / SECOND).unlink()
    assert refused(sharded) == f"{sharded}: 1 of 2 shards missing: {SECOND}; fetch or save the checkpoint again"


def test_truncated_shard(sharded: Path) -> None:
    raw = (sharded / FIRST).read_bytes()
    for length, text in (
        (len(raw) - 5, "truncated, "),
        (40, "truncated inside its header"),
        (3, "not a safetensors file"),
    ):
        (sharded / FIRST).write_bytes(raw[:length])
        said = refused(sharded)
        assert said.startswith(f"{sharded / FIRST}: {text}") and said.endswith("fetch or save the checkpoint again")


def corrupt_json(raw: bytes) -> bytes:
    return raw[:8] + b"#" + raw[9:]


def with_header(change: Callable[[dict[str, dict]], object]) -> Callable[[bytes], bytes]:
    def changed(raw: bytes) -> bytes:
        length = struct.unpack("<Q", raw[:8])[0]
        header = json.loads(raw[8 : 8 + length])
        change(header)
        new = json.dumps(header).encode()
        return struct.pack("<Q", len(new)) + new + raw[8 + length :]

    return changed


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (corrupt_json, "its header is corrupt; "),
        (with_header(lambda header: header["ids"].update(shape=[4])), "its header is corrupt at tensor ids"),
        (with_header(lambda header: header["ids"].update(data_offsets=[8, 32])), "its header is corrupt at tensor "),
        (with_header(lambda header: header["ids"].update(shape=["x"])), "its header is corrupt"),
        (with_header(lambda header: header["ids"].update(shape=[-3])), "its header is corrupt"),
        (with_header(lambda header: header["ids"].pop("dtype")), "its header is corrupt at tensor ids: dtype is None"),
        (with_header(lambda header: header["ids"].update(dtype="F3")), "tensor ids has the dtype F3"),
        (with_header(lambda header: header.update(more=3)), "corrupt at tensor more: dtype is None"),  # pyright: ignore
        (lambda raw: raw + b"1234567", "7 bytes too long for its header"),
        (lambda raw: b"<html>an error page of a proxy, perhaps</html>", "not a safetensors file"),
        (lambda raw: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "run `git lfs pull`"),
        (lambda raw: b"", "not a safetensors file (0 B)"),
    ],
)
def test_corrupt_file(single: Path, damage: Callable[[bytes], bytes], text: str) -> None:
    file = single / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    said = refused(single)
    assert said.startswith(f"{file}: ") and text in said


def test_index_naming_a_tensor_that_its_shard_lacks(sharded: Path) -> None:
    file = sharded / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    index["weight_map"]["extra.weight"] = SECOND
    file.write_text(json.dumps(index))
    assert refused(sharded).startswith(f"{sharded / SECOND}: lacks tensor extra.weight, which the index says it holds")
    index["weight_map"] = {**{name: FIRST for name in tensors()}, "norm.weight": SECOND}  # stored, but elsewhere
    file.write_text(json.dumps(index))
    assert f"{sharded / FIRST}: lacks tensor flag and 1 more" in refused(sharded)


def test_unusable_index(sharded: Path) -> None:
    file = sharded / "model.safetensors.index.json"
    for text, said in (
        ("{", "no weight_map can be read"),
        ('{"weight_map": 3}', "no weight_map can be read"),
        ('{"weight_map": {}}', "names no tensor"),
        ('{"weight_map": {"a": "../secret"}}', "names the shard '../secret', which is not in the folder"),
    ):
        file.write_text(text)
        assert said in refused(sharded)


def test_config(single: Path) -> None:
    for text, said in (("{", "not valid JSON"), ("[]", "not a JSON object")):
        (single / "config.json").write_text(text)
        assert f"{single / 'config.json'}: {said}" in refused(single)
    (single / "config.json").unlink()
    assert refused(single) == f"{single}: no config.json; perhaps you mean {single / '1_Pooling'}"
    (single / "adapter_config.json").write_text("{}")
    assert f"{single / 'adapter_config.json'}: not the config of a LoRA adapter" in refused(single)


def test_folder(single: Path, tmp_path: Path) -> None:
    assert refused(str(tmp_path / "singel")) == f"{tmp_path / 'singel'}: no such folder; did you mean 'single'?"
    assert "this is a file" in refused(single / "config.json")
    assert "neither a folder nor a hub id" in refused("not an id")
    assert "the hub cannot be reached and has left no copy here" in refused("nobody/has-this")  # tests are offline
    (single / "model.safetensors").rename(single / "other.safetensors")
    assert "no model.safetensors or model.safetensors.index.json; found model.gguf, other.safetensors" in refused(
        single
    )


def test_pickles_are_refused_unless_allowed(single: Path) -> None:
    (single / "model.safetensors").unlink()
    torch.save(tensors(), single / "pytorch_model.bin")
    assert "its weights are pickled (pytorch_model.bin), and a pickle can run code" in refused(single)
    checkpoint = open_checkpoint(single, allow_pickle=True)
    assert_whole(checkpoint)
    checkpoint.read("norm.weight").zero_()
    assert_whole(checkpoint)
    digest = checkpoint.digest
    torch.save({**tensors(), "norm.weight": torch.ones(8)}, single / "pytorch_model.bin")
    assert open_checkpoint(single, allow_pickle=True).digest != digest


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("ran"),))


def test_a_pickle_that_runs_code_does_not_run(single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (single / "model.safetensors").unlink()
    torch.save({"a": Evil()}, single / "pytorch_model.bin")
    assert "holds more than tensors, and opening that could run code" in refused(single, allow_pickle=True)
    assert not (tmp_path / "ran").exists()
    (single / "pytorch_model.bin").write_bytes(b"PK\x03\x04 cut short")
    assert "truncated or corrupt" in refused(single, allow_pickle=True) or "could run code" in refused(
        single, allow_pickle=True
    )
