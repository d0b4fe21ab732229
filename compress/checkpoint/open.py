"""Open a checkpoint: a folder, or a hub id that becomes one. Weights stay on disk until a tensor is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compress.checkpoint.code import code_in, without_code
from compress.checkpoint.header import AGAIN, TensorSpec, read_header
from compress.checkpoint.hub import fetch
from compress.checkpoint.pickled import Pickles
from compress.errors import InputError
from compress.registry import did_you_mean

__all__ = ["Checkpoint", "TensorSpec", "open_checkpoint"]

SAFE, PICKLED = "model.safetensors", "pytorch_model.bin"
WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".ot", ".gguf", ".onnx", ".tflite"}
FOREIGN = {"onnx", "openvino", "coreml", "gguf", "original", "metal", "__pycache__"}
"""Folders with the same weights in another format: no longer true of what we write, so not carried over."""

WHOLE_HASH = 64_000_000
"""Weights up to this many bytes enter the digest whole, larger ones as samples of every tensor."""


@dataclass(eq=False)
class Checkpoint:
    """A model on disk. `tensors` are the stored tensors by their name on disk, `config` is config.json's content.

    `side_files` are the other files that belong to the model (tokenizer, processor, generation config, code, …), as
    absolute paths below `folder`. Unless `trust_remote_code`, `config` is without what names code, and `code` lists
    what of the folder is code or names some: it is neither run nor passed on.
    """

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, TensorSpec]
    side_files: list[Path]
    trust_remote_code: bool = False
    code: list[str] = field(default_factory=list)
    _headers: dict[Path, bytes] = field(default_factory=dict, repr=False)
    _pickles: Pickles | None = field(default=None, repr=False)

    @property
    def bytes(self) -> int:
        """Size of all stored tensors."""
        return sum(spec.bytes for spec in self.tensors.values())

    @property
    def left_behind(self) -> list[str]:
        """What no output gets of this folder, a sentence each."""
        if not self.code:
            return []
        return [f"left behind, as --trust-remote-code was not given: {', '.join(self.code)}"]

    def read(self, name: str) -> Tensor:
        """The tensor stored as `name`, in its stored dtype, in memory of its own; any thread may call this.

        It is read, not memory-mapped: mapped pages would stay in the process's resident memory.
        """
        spec = self.tensors[name]
        if self._pickles is not None:
            return self._pickles.read(spec)
        flat = torch.empty(spec.bytes, dtype=torch.uint8)
        _fill(flat, spec.file, spec.start)
        return flat.view(spec.dtype).reshape(spec.shape)

    @cached_property
    def digest(self) -> str:
        """Hash of the config, the headers and the weights' content (sampled in every tensor when they are large)."""
        digest = blake2b(json.dumps(self.config, sort_keys=True).encode(), digest_size=20)
        for file, header in sorted(self._headers.items()):
            digest.update(file.name.encode() + file.stat().st_size.to_bytes(8, "little") + header)
        for file, start, count in self._sampled():
            chunk = torch.empty(count, dtype=torch.uint8)
            _fill(chunk, file, start)
            digest.update(chunk.numpy().data)
        return digest.hexdigest()

    def _sampled(self) -> Iterator[tuple[Path, int, int]]:
        if self._pickles is not None:
            for file in sorted(self._headers):
                size = file.stat().st_size
                step = max(1, size // 64)
                yield from ((file, start, min(65536, size - start)) for start in range(0, size, step))
            return
        whole = self.bytes <= WHOLE_HASH
        for spec in self.tensors.values():
            if whole or spec.bytes <= 3 * 4096:
                yield spec.file, spec.start, spec.bytes
            else:
                for start in (0, spec.bytes // 2, spec.bytes - 4096):
                    yield spec.file, spec.start + start, 4096


def open_checkpoint(
    where: str | Path,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
) -> Checkpoint:
    """The checkpoint in the folder `where`, or of the hub's model `where` (`owner/name`, `owner/name@revision`).

    Raises InputError, naming file and cure, when there is none, when config.json or a shard is missing, truncated or
    corrupt, when the index names what a shard lacks, and when the weights are pickled and `allow_pickle` is not given.
    """
    folder = _folder(where, revision, allow_pickle)
    config = _config(folder)
    tensors: dict[str, TensorSpec] = {}
    headers: dict[Path, bytes] = {}
    pickles = None
    files, index = _weight_files(folder, SAFE)
    if files:
        for file in files:
            specs, headers[file] = read_header(file)
            for name, spec in specs.items():
                if index is None or index.get(name, file.name) == file.name:
                    tensors[name] = spec
    else:
        files, index = _weight_files(folder, PICKLED)
        if not files:
            raise InputError(_no_weights(folder))
        if not allow_pickle:
            raise InputError(
                f"{folder}: its weights are pickled ({files[0].name}), and a pickle can run code when it is opened; "
                f"save it as safetensors, or pass --allow-pickle if you trust it"
            )
        pickles = Pickles(files)
        tensors, headers = pickles.specs(), dict.fromkeys(files, b"")
    if index is not None:
        lacking = [name for name in index if name not in tensors]
        if lacking:
            name = lacking[0]
            more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            raise InputError(
                f"{folder / index[name]}: lacks tensor {name}{more}, which the index says it holds; {AGAIN}"
            )
    if not tensors:
        raise InputError(f"{files[0]}: holds no tensor; {AGAIN}")
    code = [] if trust_remote_code else code_in(folder)
    config = config if trust_remote_code else without_code(config)
    return Checkpoint(folder, config, tensors, _side_files(folder), trust_remote_code, code, headers, pickles)


def _folder(where: str | Path, revision: str | None, allow_pickle: bool) -> Path:
    folder = Path(where).expanduser()
    if folder.is_dir():
        return folder.absolute()
    if folder.exists():
        raise InputError(f"{where}: a model is a folder with config.json, this is a file; give {folder.parent}")
    name, _, tagged = str(where).partition("@")
    if isinstance(where, Path) or str(where).startswith(("/", ".", "~")) or name.count("/") > 1 or not name:
        near = ""
        if folder.parent.is_dir():
            near = did_you_mean(folder.name, (path.name for path in folder.parent.iterdir() if path.is_dir()))
        raise InputError(f"{where}: no such folder{near}")
    return fetch(name, revision or tagged or None, allow_pickle=allow_pickle)


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.exists():
        if (folder / "adapter_config.json").exists():
            raise InputError(f"{folder}: an adapter, not a model; merge it into its base model first")
        below = [path.parent.name for path in sorted(folder.glob("*/config.json"))]
        hint = f"; perhaps you mean {folder / below[0]}" if below else "; give the folder that holds a model"
        raise InputError(f"{folder}: no config.json{hint}")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not valid JSON ({error}); {AGAIN}") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None
    if not isinstance(config, dict):
        raise InputError(f"{file}: not a JSON object; {AGAIN}")
    return config


def _weight_files(folder: Path, name: str) -> tuple[list[Path], dict[str, str] | None]:
    """The files that hold the weights, as stock loaders choose them, and the index when there is one."""
    if (folder / name).exists():
        return [folder / name], None
    file = folder / f"{name}.index.json"
    if not file.exists():
        return [], None
    try:
        index = json.loads(file.read_text(encoding="utf-8"))["weight_map"]
        shards = sorted({str(shard) for shard in index.values()})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise InputError(f"{file}: corrupt, no weight_map can be read; {AGAIN}") from None
    if outside := [shard for shard in shards if Path(shard).name != shard]:
        raise InputError(f"{file}: names the shard {outside[0]!r}, which is not in the folder")
    if missing := [shard for shard in shards if not (folder / shard).exists()]:
        raise InputError(f"{folder}: {len(missing)} of {len(shards)} shards missing: {', '.join(missing)}; {AGAIN}")
    if not shards:
        raise InputError(f"{file}: names no tensor; {AGAIN}")
    return [folder / shard for shard in shards], index


def _no_weights(folder: Path) -> str:
    others = sorted(path.name for path in folder.iterdir() if path.suffix in WEIGHTS)
    found = f"; found {', '.join(others[:5])}, which stock loaders do not open either" if others else ""
    return f"{folder}: no {SAFE} or {SAFE}.index.json{found}"


def _side_files(folder: Path) -> list[Path]:
    """Everything that is no weight: a file of weights in a subfolder belongs to another module and stays."""
    found = []
    for file in sorted(folder.rglob("*")):
        inside = file.relative_to(folder).parts
        if not file.is_file() or any(part.startswith(".") for part in inside) or FOREIGN & set(inside[:-1]):
            continue
        if len(inside) == 1 and (
            file.suffix in WEIGHTS or file.name.endswith(".index.json") or file.name == "config.json"
        ):
            continue
        found.append(file)
    return found


def _fill(flat: Tensor, file: Path, start: int) -> None:
    """Read into `flat` uint8 `[bytes]` from byte `start` of `file`."""
    view = flat.numpy().data
    with file.open("rb", buffering=0) as opened:
        opened.seek(start)
        while len(view):
            count = opened.readinto(view)
            if not count:
                raise InputError(f"{file}: ended early; it became shorter while it was being read")
            view = view[count:]
