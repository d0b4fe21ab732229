"""Open a checkpoint: a folder, or a hub id that becomes one. Weights stay on disk until a tensor is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from compress.checkpoint.adapter import CONFIG as ADAPTER_CONFIG
from compress.checkpoint.adapter import Merged, is_adapter, read_adapter
from compress.checkpoint.code import code_in, without_code
from compress.checkpoint.converted import Converted, stored_tensors
from compress.checkpoint.digest import content_digests
from compress.checkpoint.header import AGAIN, TensorSpec, read_header
from compress.checkpoint.locate import CONFIG, is_config_alone, model_folder, read_config
from compress.checkpoint.lora import stored
from compress.checkpoint.pickled import Pickles
from compress.checkpoint.quantised import check_gguf, check_quantised
from compress.checkpoint.seen import Seen, Stamp, unreadable
from compress.checkpoint.side_files import side_files
from compress.checkpoint.weight_files import PICKLED, SAFE, no_weights, weight_files
from compress.errors import ConfigAloneError, InputError
from compress.files.ordinary import check_ordinary

if TYPE_CHECKING:
    from compress.checkpoint.held import Architecture

__all__ = ["Checkpoint", "TensorSpec", "open_checkpoint", "open_tensors"]

WHOLE = "give a folder that holds the weights too"
NAMED = 8  # files that are named where more are left behind; code is always named


@dataclass(eq=False)
class Checkpoint:
    """A model on disk. `tensors` are the stored tensors by their name on disk, `config` is config.json's content.

    `side_files` are the other files that belong to the model (tokenizer, processor, generation config, …), `staying`
    those that are not known to, all as absolute paths below `folder`. Unless `trust_remote_code`, `config` is without
    what names code, and `code` lists what of the folder is code or names some: it is neither run nor passed on.
    With `config_only` no weight can be read; `tensors` are empty, or what the config asks for.
    With an `adapter`, `folder` is its base's, and `read` gives the tensors with the adapter in them.
    """

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, TensorSpec]
    side_files: list[Path]
    trust_remote_code: bool = False
    code: list[str] = field(default_factory=list)
    staying: list[Path] = field(default_factory=list)
    config_only: bool = False
    _weights: dict[Path, Seen] = field(default_factory=dict, repr=False)
    _papers: dict[Path, Seen] = field(default_factory=dict, repr=False)  # config.json and the index
    _pickles: Pickles | None = field(default=None, repr=False)
    adapter: Merged | None = None
    architecture: ClassVar[Architecture | None] = None  # of a module in memory, see `compress.checkpoint.held`
    _converted: Mapping[str, Converted] = field(default_factory=dict, repr=False)
    _sources: Mapping[str, TensorSpec] = field(default_factory=dict, repr=False)  # of those

    @property
    def bytes(self) -> int:
        """Size of all stored tensors."""
        return sum(spec.bytes for spec in self.tensors.values())

    @property
    def left_behind(self) -> list[str]:
        """What no output gets of this folder, and what an adapter was merged into, a sentence each."""
        found = []
        if self.adapter is not None:
            found.append(f"the LoRA adapter {self.adapter.folder} is merged into {self.folder}")
            if unlike := self.adapter.unlike(self.folder):
                found.append(f"left behind of the adapter, as its base's files are kept: {_some(unlike)}")
        if self.code:
            found.append(f"left behind, as --trust-remote-code was not given: {', '.join(self.code)}")
        others = [str(file.relative_to(self.folder)) for file in self.staying]
        if others := [name for name in others if name not in self.code]:
            found.append(
                f"left behind, as no part of a model is known by that name (--include takes one): {_some(others)}"
            )
        return found

    def read(self, name: str) -> Tensor:
        """The tensor stored as `name`, in its stored dtype, in memory of its own; any thread may call this.

        It is read, not memory-mapped: mapped pages would stay in the process's resident memory. Raises
        ConfigAloneError when the checkpoint is a config alone.
        """
        if self.config_only:
            raise ConfigAloneError(f"{self.folder}: {name} was asked for, and only the config is there; {WHOLE}")
        if (made := self._converted.get(name)) is not None:
            return made.make(self.read)
        spec = self._sources[name] if name in self._sources else self.tensors[name]
        tensor = self._pickles.read(spec) if self._pickles is not None else stored(spec)
        return tensor if self.adapter is None else self.adapter.apply(name, tensor)

    def check_unchanged(self) -> None:
        """Raise InputError when the config, the index or a file of weights is not what was opened."""
        for file, seen in {**self._papers, **self._weights}.items():
            seen.check(file)

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """For a block that reads the checkpoint, and is to give nothing when that changes meanwhile.

        Raises InputError naming the file, at the block's end or instead of what else went wrong in it.
        """
        try:
            yield
        except Exception as error:
            self.check_unchanged()
            if isinstance(error, FileNotFoundError) and (lost := self._side_file(error.filename)):
                raise unreadable(lost, error) from None
            raise
        self.check_unchanged()

    def _side_file(self, name: object) -> Path | None:
        return next((file for file in self.side_files if str(file) == str(name)), None)

    @cached_property
    def digest(self) -> str:
        """Hash of the config and of the whole content of the weights' files, wherever they lie; an adapter's too.

        Read on first use, unless it is remembered from an earlier run. Raises InputError when a file has changed since
        it was opened.
        """
        places = {name: spec.file.name for name, spec in sorted(stored_tensors(self).items())}
        papers = [seen.head.decode() for file, seen in self._papers.items() if file.name in (CONFIG, ADAPTER_CONFIG)]
        digest = blake2b(json.dumps([papers, places], sort_keys=True).encode(), digest_size=20)
        contents = content_digests(self._weights)
        for file in sorted(contents, key=lambda file: file.name):  # two folders may lie anywhere
            digest.update(contents[file])
        self.check_unchanged()
        return digest.hexdigest()


def open_checkpoint(
    where: str | Path,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    include: Sequence[str] = (),
    base: str | Path | None = None,
) -> Checkpoint:
    """The checkpoint in the folder `where`, or of the hub's model `where` (`owner/name`, `owner/name@revision`).

    The folder of a LoRA adapter is opened as its base model with the adapter in it; `base` is that, where the one that
    the adapter's config names is not to be found.

    `include` are patterns of files beside the weights that travel though no model is known to have them. Raises
    InputError, naming file and cure, when there is none, when config.json or a shard is missing, truncated or corrupt,
    when the index names what a shard lacks, and when the weights are pickled and `allow_pickle` is not given. Raises
    ModelError when they are quantised.
    """
    folder = model_folder(where, revision, allow_pickle=allow_pickle)
    if is_adapter(folder):
        return _with_adapter(
            folder, base, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle, include=include
        )
    if base is not None:
        raise InputError(f"--base {base}: {where} is no adapter, it needs no base; leave --base out")
    config, papers = _config(folder)
    tensors: dict[str, TensorSpec] = {}
    weights: dict[Path, Seen] = {}
    pickles = None
    files, index = weight_files(folder, SAFE, papers)
    if files:
        for file in files:
            specs, weights[file] = _header(file)
            for name, spec in specs.items():
                if index is None or index.get(name, file.name) == file.name:
                    tensors[name] = spec
    else:
        files, index = weight_files(folder, PICKLED, papers)
        if not files:
            check_gguf(folder)
            raise InputError(no_weights(folder))
        if not allow_pickle:
            raise InputError(
                f"{folder}: its weights are pickled ({files[0].name}), and a pickle can run code when it is opened; "
                f"save it as safetensors, or pass --allow-pickle if you trust it"
            )
        weights = {file: Seen(Stamp.of(file), b"") for file in files}
        pickles = Pickles(files)
        tensors = pickles.specs()
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
    check_quantised(folder, config, tensors)
    code = [] if trust_remote_code else code_in(folder)
    config = config if trust_remote_code else without_code(config)
    beside = side_files(folder, include, code=trust_remote_code)
    return Checkpoint(
        folder,
        config,
        tensors,
        beside.travelling,
        trust_remote_code,
        code,
        beside.staying,
        _weights=weights,
        _papers=papers,
        _pickles=pickles,
    )


def open_config(where: str | Path, *, revision: str | None = None, trust_remote_code: bool = False) -> Checkpoint:
    """The model `where` by its config alone: of a folder nothing else is read, of a hub id nothing else is fetched.

    It has no tensors; `compress.model.model.Model.of` gives it those that the config asks for, which cannot be read.
    Raises InputError, as `open_checkpoint` does, and ModelError where the config says that weights are quantised.
    """
    folder = model_folder(where, revision, config_only=True, code=trust_remote_code)
    config, papers = _config(folder)
    code = [] if trust_remote_code else code_in(folder)
    config = config if trust_remote_code else without_code(config)
    return Checkpoint(folder, config, {}, [], trust_remote_code, code, _papers=papers, config_only=True)


def open_to_inspect(
    where: str | Path,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    base: str | Path | None = None,
) -> Checkpoint:
    """The checkpoint `where`, for what reads no weights: of a folder without any, and of the hub, the config alone.

    Raises what `open_checkpoint` does.
    """
    if base is None and is_config_alone(where):
        return open_config(where, revision=revision, trust_remote_code=trust_remote_code)
    return open_checkpoint(
        where, revision=revision, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle, base=base
    )


def open_tensors(file: Path) -> Checkpoint:
    """One safetensors file that is no model, such as a delta's: a checkpoint without a config. Raises InputError."""
    tensors, seen = _header(file)
    return Checkpoint(file.parent, {}, tensors, [], _weights={file: seen})


def _with_adapter(folder: Path, base: str | Path | None, **options: Any) -> Checkpoint:
    adapter = read_adapter(folder)
    named = base if base is not None else adapter.base
    if named is None:
        raise InputError(f"{folder / ADAPTER_CONFIG}: base_model_name_or_path: names no model; pass --base MODEL")
    try:
        revision, pickles = adapter.revision if base is None else None, options["allow_pickle"]
        below = model_folder(named, revision, allow_pickle=pickles)
        if is_adapter(below):
            raise InputError(f"{named}: an adapter too; merge it into its base first")
        opened = open_checkpoint(below, **options)
    except InputError as error:
        if base is not None:
            raise
        raise InputError(f"{folder / ADAPTER_CONFIG}: its base model: {error}; --base MODEL names another") from None
    return replace(
        opened,
        adapter=adapter.onto(opened.tensors),
        _weights={**opened._weights, **adapter.weights},
        _papers={**opened._papers, **adapter.papers},
    )


def _header(file: Path) -> tuple[dict[str, TensorSpec], Seen]:
    stamp = Stamp.of(file)
    specs, raw = read_header(file)
    return specs, Seen(stamp, len(raw).to_bytes(8, "little") + raw)


def _config(folder: Path) -> tuple[dict[str, Any], dict[Path, Seen]]:
    """config.json and what was seen of it, after a look at all that transformers reads beside it."""
    for file in folder.iterdir():
        if file.exists() and not file.is_dir():
            check_ordinary(file)
    config, seen = read_config(folder)
    check_quantised(folder, config, {})
    return config, {folder / CONFIG: seen}


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
