"""Weights: safetensors files, their index, pickles."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from bad_inputs.case import PRUNE, Case, Prepare, header, pickled, shard, weights

FILE = "model.safetensors"
AGAIN = "fetch or save the checkpoint again"
TENSOR = "model.layers.0.mlp.gate_proj.weight"


def _header(name: str, *says: str, **entry: Any) -> Case:
    """One tensor's entry in the header changed."""
    return Case(name, (FILE, *says), lambda folder: header(folder, lambda content: content[TENSOR].update(entry)))


def _whole(name: str, change: Callable[[dict[str, Any]], object], *says: str) -> Case:
    return Case(name, (FILE, *says), lambda folder: header(folder, change))


def _raw(name: str, change: Callable[[bytes], bytes], *says: str) -> Case:
    def prepare(folder: Path) -> None:
        file = folder / "base/model.safetensors"
        file.write_bytes(change(file.read_bytes()))

    return Case(name, (FILE, *says), prepare)


def _weights(name: str, change: Callable[[dict[str, torch.Tensor]], object], *says: str, code: int = 3) -> Case:
    says = says if "config.json" in says else (FILE, *says)
    return Case(name, says, lambda folder: weights(folder, change), code=code)


def _as(dtype: torch.dtype) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors.update({name: tensor.to(dtype) for name, tensor in tensors.items()})

    return change


def _one(make: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda tensors: tensors.update({TENSOR: make(tensors[TENSOR])})


def _index(name: str, change: Callable[[dict[str, Any]], Any], *says: str, code: int = 2) -> Case:
    def prepare(folder: Path) -> None:
        index = shard(folder)
        content = json.loads(index.read_text())
        index.write_text(json.dumps(change(content) or content))

    return Case(name, says, prepare, code=code)


def _index_text(name: str, text: bytes, *says: str) -> Case:
    return Case(name, ("index.json", *says), lambda folder: shard(folder).write_bytes(text))


def _instead(make: Prepare) -> Prepare:
    def prepare(folder: Path) -> None:
        (folder / "base/model.safetensors").unlink()
        make(folder / "base/model.safetensors")

    return prepare


def _shard_instead(make: Prepare) -> Prepare:
    def prepare(folder: Path) -> None:
        shard(folder)
        file = folder / "base/model-00002-of-00002.safetensors"
        file.unlink()
        make(file)

    return prepare


def _renamed(to: str) -> Prepare:
    return lambda folder: (folder / "base/model.safetensors").rename(folder / "base" / to)


def _pickle(content: Any) -> Prepare:
    def prepare(folder: Path) -> None:
        (folder / "base/model.safetensors").unlink()
        file = folder / "base/pytorch_model.bin"
        file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)

    return prepare


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("evil",)


def _placed(file: str) -> Callable[[dict[str, Any]], None]:
    """Every tensor of the index in that file."""
    return lambda content: content["weight_map"].update(dict.fromkeys(content["weight_map"], file))


OPEN = PRUNE + " --allow-pickle"
CASES = [
    _header("shape negative", TENSOR, "[-48, 32]", AGAIN, shape=[-48, 32]),
    _header("shape of two negatives", TENSOR, "[-48, -32]", AGAIN, shape=[-48, -32]),
    _header("shape of floats", TENSOR, "[48.0, 32.0]", AGAIN, shape=[48.0, 32.0]),
    _header("shape of strings", TENSOR, "['48', '32']", AGAIN, shape=["48", "32"]),
    _header("shape of truths", TENSOR, "True", AGAIN, shape=[True, 1536]),
    _header("shape a string", TENSOR, "'48'", AGAIN, shape="48"),
    _header("shape a number", TENSOR, "1536", AGAIN, shape=1536),
    _header("shape null", TENSOR, "None", AGAIN, shape=None),
    _header("shape nested", TENSOR, "[[48, 32]]", AGAIN, shape=[[48, 32]]),
    _header("shape too large", TENSOR, AGAIN, shape=[4800, 32]),
    _header("shape beyond any machine", TENSOR, AGAIN, shape=[2**62, 2**62]),
    _header("shape of none", TENSOR, AGAIN, shape=[0, 32]),
    _header("shape of another order", "header", AGAIN, shape=[1537]),
    _header("offsets of strings", TENSOR, "['0', '6144']", AGAIN, data_offsets=["0", "6144"]),
    _header("offsets of floats", TENSOR, "[0.0, 6144.0]", AGAIN, data_offsets=[0.0, 6144.0]),
    _header("offsets negative", TENSOR, AGAIN, data_offsets=[-6144, 0]),
    _header("offsets swapped", AGAIN, data_offsets=[6144, 0]),
    _header("offsets three", TENSOR, AGAIN, data_offsets=[0, 1, 2]),
    _header("offsets one", TENSOR, AGAIN, data_offsets=[0]),
    _header("offsets none", TENSOR, AGAIN, data_offsets=[]),
    _header("offsets null", TENSOR, AGAIN, data_offsets=None),
    _header("offsets beyond the file", AGAIN, data_offsets=[10**12, 10**12 + 6144]),
    _header("dtype a list", TENSOR, "['F32']", AGAIN, dtype=["F32"]),
    _header("dtype a number", TENSOR, "32", AGAIN, dtype=32),
    _header("dtype null", TENSOR, "None", AGAIN, dtype=None),
    _header("dtype unknown", TENSOR, "Q4_K", "not supported", dtype="Q4_K"),
    _header("dtype of another size", AGAIN, dtype="F16"),
    _whole("tensor without a dtype", lambda content: content[TENSOR].pop("dtype"), TENSOR, "dtype", AGAIN),
    _whole("tensor without a shape", lambda content: content[TENSOR].pop("shape"), TENSOR, "shape", AGAIN),
    _whole("tensor a string", lambda content: content.update({TENSOR: "x"}), TENSOR, AGAIN),
    _whole("tensor a list", lambda content: content.update({TENSOR: []}), TENSOR, AGAIN),
    _whole("two tensors in one place",
           lambda content: content[TENSOR].update(data_offsets=content["model.norm.weight"]["data_offsets"]), AGAIN),
    _whole("tensor dropped, its bytes there", lambda content: content.pop(TENSOR), "header is corrupt", AGAIN),
    _whole("no tensor", lambda content: content.clear(), AGAIN),
    _raw("empty", lambda raw: b"", "not a safetensors file", AGAIN),
    _raw("seven bytes", lambda raw: raw[:7], "not a safetensors file", AGAIN),
    _raw("cut in the header", lambda raw: raw[:200], "truncated inside its header", AGAIN),
    _raw("cut in the data", lambda raw: raw[:-1000], "truncated", AGAIN),
    _raw("too long", lambda raw: raw + b"more", "4 bytes too long", AGAIN),
    _raw("zeros", lambda raw: bytes(len(raw)), AGAIN),
    _raw("a giant header", lambda raw: struct.pack("<Q", 2**60) + raw[8:], "not a safetensors file", AGAIN),
    _raw("header no JSON", lambda raw: raw[:8] + b"x" + raw[9:], "header is corrupt", AGAIN),
    _raw("header a list", lambda raw: struct.pack("<Q", 2) + b"[]", "header is corrupt", AGAIN),
    _raw("header nested without end", lambda raw: struct.pack("<Q", 10**5) + b"[" * 10**5, "header is corrupt", AGAIN),
    _raw("header not UTF-8", lambda raw: struct.pack("<Q", 2) + b"\xff\xfe", "header is corrupt", AGAIN),
    _raw("a pointer of Git LFS", lambda raw: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
         "git lfs pull"),
    _raw("HTML", lambda raw: b"<!DOCTYPE html><html>404</html>", "not a safetensors file", AGAIN),
    _weights("a weight one row short", _one(lambda weight: weight[:-1]), TENSOR, "[47, 32]", "[48, 32]"),
    _weights("a weight one row long", _one(lambda weight: torch.cat([weight, weight[:1]])), TENSOR, "[49, 32]"),
    _weights("a weight transposed", _one(lambda weight: weight.T), TENSOR, "[32, 48]", "[48, 32]"),
    _weights("a weight flat", _one(lambda weight: weight.flatten()), TENSOR, "[1536]", "[48, 32]"),
    _weights("a weight a scalar", _one(lambda weight: weight[0, 0]), TENSOR, "[]", "[48, 32]"),
    _weights("a weight empty", _one(lambda weight: weight[:0]), TENSOR, "[0, 32]", "[48, 32]"),
    _weights("a norm too long", lambda tensors: tensors.update({"model.norm.weight": torch.ones(33)}),
             "model.norm.weight", "[33]", "[32]"),
    _weights("a weight missing", lambda tensors: tensors.pop(TENSOR), "config.json", TENSOR, "neither stored nor tied"),
    _weights("a layer missing", lambda tensors: [tensors.pop(n) for n in list(tensors) if ".layers.1." in n],
             "config.json", "model.layers.1", "neither stored"),
    _weights("all renamed", lambda tensors: [tensors.update({f"x.{n}": tensors.pop(n)}) for n in list(tensors)],
             "config.json", "model.embed_tokens.weight", "x.model"),
    _weights("all int8", _as(torch.int8), "model.embed_tokens.weight", "int8", "unquantised"),
    _weights("all fp8", _as(torch.float8_e4m3fn), "model.embed_tokens.weight", "float8_e4m3fn", "unquantised"),
    _weights("all uint8", _as(torch.uint8), "uint8", "unquantised"),
    _weights("all complex", _as(torch.complex64), "model.embed_tokens.weight", "complex64", "float"),
    _weights("all int64", _as(torch.int64), "model.embed_tokens.weight", "int64", "float"),
    _weights("all bool", _as(torch.bool), "model.embed_tokens.weight", "bool", "float"),
    _weights("one weight int8", _one(lambda weight: weight.to(torch.int8)), TENSOR, "int8", "unquantised"),
    _weights("one weight fp8", _one(lambda weight: weight.to(torch.float8_e5m2)), TENSOR, "float8_e5m2"),
    _weights("one weight complex", _one(lambda weight: weight.to(torch.complex64)), TENSOR, "complex64"),
    _weights("NaN", _one(lambda weight: weight * torch.nan), TENSOR, "NaN or infinity", "again", code=2),
    _weights("infinity", _one(lambda weight: weight / 0), TENSOR, "NaN or infinity", "again", code=2),
    Case("all float64", ("wrote out",), lambda folder: weights(folder, _as(torch.float64)), code=0),
    Case("all bfloat16", ("wrote out",), lambda folder: weights(folder, _as(torch.bfloat16)), code=0),
    Case("a tensor that no one asked for", ("wrote out", "left behind", "adapter.x"),
         lambda folder: weights(folder, lambda tensors: tensors.update({"adapter.x": torch.ones(3)})), code=0),
    Case("no weights", ("no model.safetensors",), _instead(lambda file: None)),
    Case("a folder", (FILE, "folder", "ordinary file"), _instead(lambda file: file.mkdir())),
    Case("a pipe", (FILE, "named pipe", "ordinary file"), _instead(os.mkfifo)),
    Case("a device", (FILE, "device", "ordinary file"), _instead(lambda file: file.symlink_to("/dev/zero"))),
    Case("a dangling link", (FILE, "link", "nowhere", "put the file there"),
          _instead(lambda file: file.symlink_to("nowhere"))),
    Case("a link to itself", (FILE, "link"), _instead(lambda file: file.symlink_to(file))),
    Case("a shard a pipe", ("00002-of-00002", "named pipe"), _shard_instead(os.mkfifo)),
    Case("a shard a folder", ("00002-of-00002", "folder"), _shard_instead(lambda file: file.mkdir())),
    Case("a shard a dangling link", ("00002-of-00002", "link", "nowhere"),
         _shard_instead(lambda file: file.symlink_to("nowhere"))),
    Case("a shard missing", ("1 of 2 shards missing", "00002-of-00002", AGAIN), _shard_instead(lambda file: None)),
    Case("a shard empty", ("00002-of-00002", "not a safetensors file"), _shard_instead(lambda file: file.touch())),
    Case("a shard of something else", ("00002-of-00002", "lacks tensor", AGAIN),
         _shard_instead(lambda file: save_file({"x": torch.ones(3)}, file))),
    _index_text("index empty", b"", "corrupt", AGAIN),
    _index_text("index a list", b"[]", "corrupt", AGAIN),
    _index_text("index without a map", b"{}", "weight_map", AGAIN),
    _index_text("index cut off", b'{"weight_map": {"a"', "corrupt", AGAIN),
    _index_text("index not UTF-8", b"\xff\xfe", "corrupt", AGAIN),
    _index_text("index nested without end", b"[" * 10**5, "corrupt", AGAIN),
    _index_text("index maps nothing", b'{"weight_map": {}}', "names no tensor", AGAIN),
    _index("index maps a list", lambda content: {"weight_map": []}, "index.json", "corrupt", AGAIN),
    _index("index outside the folder", _placed("../x.safetensors"), "index.json", "../x.safetensors", "not in the"),
    _index("index absolute", _placed("/etc/passwd"), "index.json", "/etc/passwd", "not in the"),
    _index("index names itself", _placed("."), "index.json", "'.'"),
    _index("shard named like a book", _placed("x" * 5000), "index.json", "xxx", "no file name"),
    _index("shard named with a zero byte", _placed("a\0b"), "index.json", "no file name"),
    _index("shard named nothing", _placed(""), "index.json", "''"),
    _index("shard a number", _placed(3), "index.json", "3"),  # pyright: ignore[reportArgumentType]
    _index("shard null", _placed(None), "index.json", "None"),  # pyright: ignore[reportArgumentType]
    _index("index names what no shard has", lambda content: content["weight_map"].update(x=FILE.replace(
        ".", "-00001-of-00002.")), "lacks tensor x", AGAIN),
    _index("index forgets a tensor", lambda content: content["weight_map"].pop(TENSOR) and None, "wrote out", code=0),
    Case("index a pipe", ("index.json", "named pipe"), lambda folder: (i := shard(folder), i.unlink(), os.mkfifo(i))),
    Case("index a folder", ("index.json",), lambda folder: (i := shard(folder), i.unlink(), i.mkdir())),
    Case("weights under another name", ("no model.safetensors", "weights.safetensors"),
          _renamed("weights.safetensors")),
    Case("weights of Keras", ("no model.safetensors", "tf_model.h5"), _renamed("tf_model.h5")),
    Case("weights of ONNX", ("no model.safetensors", "model.onnx"), _renamed("model.onnx")),
    Case("pickled, not allowed", ("pytorch_model.bin", "--allow-pickle"), pickled),
    Case("pickled and allowed", ("wrote out",), pickled, OPEN, 0),
    Case("pickled code", ("pytorch_model.bin", "more than tensors"), _pickle(Evil()), OPEN),
    Case("pickled list", ("pytorch_model.bin", "a list", AGAIN), _pickle([1]), OPEN),
    Case("pickled numbers", ("pytorch_model.bin", "no tensor"), _pickle({"a": 1}), OPEN),
    Case("pickle empty", ("pytorch_model.bin", "corrupt", AGAIN), _pickle(b""), OPEN),
    Case("pickle garbage", ("pytorch_model.bin", AGAIN), _pickle(b"PK\x03\x04" + b"x" * 500), OPEN),
    Case("pickle of keys that are numbers", ("pytorch_model.bin",), _pickle({3: torch.ones(2)}), OPEN),
    Case("model a file", ("base/config.json", "a model is a folder"), command="m.yaml base/config.json out"),
    Case("model missing", ("nosuch", "no such folder"), command="m.yaml ./nosuch out"),
    Case("model misspelt", ("./bsae", "did you mean 'base'"), command="m.yaml ./bsae out"),
    Case("model an empty folder", ("no config.json",), lambda folder: (folder / "e").mkdir(), "m.yaml e out"),
    Case("model a name with a zero", ("neither a folder nor a hub id",), command="m.yaml 'a b/c' out"),
    Case("model a hub id, offline", ("no/where", "no such folder"), command="m.yaml no/where out"),
    Case("model a name of 5000 letters", ("xxx",), command=f"m.yaml {'x' * 5000} out"),
    Case("model nothing", ("''", "give the folder"), command="inspect ''"),
    Case("model a pipe", ("p:", "folder"), lambda folder: os.mkfifo(folder / "p"), "m.yaml ./p out"),
    Case("model a device", ("/dev/null", "folder"), command="m.yaml /dev/null out"),
]  # fmt: skip
