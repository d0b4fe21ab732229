"""Which files beside the weights belong to a model and travel with it; everything else stays where it is.

A folder that somebody works in also holds optimizer states, logs, other models, secrets; what is copied is published.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePath

from compress.errors import InputError

KNOWN = (
    # tokenizers
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt"),
    *("vocab.*", "vocab-*.json", "*.model", "*.spm", "*.tiktoken", "bpe.codes", "dict*.txt", "tekken.json"),
    "normalizer.json",
    # processors, generation, chat
    *("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json", "generation_config.json"),
    *("chat_template.json", "chat_template.jinja", "additional_chat_templates/*.jinja"),
    # sentence-transformers, whose further modules have weights of their own
    *("modules.json", "sentence_*_config.json", "config_sentence_transformers.json", "[0-9]_*/config.json"),
    "[0-9]_*/model.safetensors",
    "example_inputs.npz",  # of models whose forward takes what no kind of inputs knows
    # terms, and the card that ours takes over from
    *("license*", "licence*", "*_license*", "notice*", "copying*", "use_policy*", "readme.md"),
)
"""Paths below the folder in lower case, a pattern for each of their parts."""

CODE = ("*.py", "custom_generate/*.py", "custom_generate/*.txt")
"""Travels where it is trusted."""

WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".ot", ".gguf", ".onnx", ".tflite"}
FOREIGN = {"onnx", "openvino", "coreml", "gguf", "original", "metal", "__pycache__"}
"""Folders with the same weights in another format: no longer true of what we write."""


@dataclass(frozen=True)
class SideFiles:
    """Absolute paths below a checkpoint's folder: those that travel, and those that do not though nothing is wrong."""

    travelling: list[Path] = field(default_factory=list)
    staying: list[Path] = field(default_factory=list)


def side_files(folder: Path, include: Sequence[str] = (), *, code: bool = False) -> SideFiles:
    """The files beside the weights, sorted; code only with `code`, others where `include` has a pattern for them.

    A pattern is one of a path below the folder, or of a folder for all that is in it. A link that leads out of the
    folder is never followed, hidden files and the weights in other formats are not looked at. Raises InputError for a
    pattern that no file, or such a link, matches.
    """
    known = (*KNOWN, *CODE) if code else KNOWN
    found, unused = SideFiles(), set(include)
    for file in _candidates(folder):
        inside = file.relative_to(folder)
        wanted = [pattern for pattern in include if _included(inside, pattern)]
        unused.difference_update(wanted)
        inner = not file.is_symlink() or _stays_inside(file, folder)
        if wanted and not inner:
            raise InputError(f"--include {wanted[0]}: {file} is a link that leads out of {folder}; put the file there")
        travels = inner and (wanted or any(_matches(inside, pattern) for pattern in known))
        (found.travelling if travels else found.staying).append(file)
    if unused:
        raise InputError(f"--include {min(unused)}: {folder} has no such file beside its weights")
    return found


def _candidates(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.rglob("*")):
        inside = file.relative_to(folder)
        if not file.is_file() or any(part.startswith(".") for part in inside.parts) or FOREIGN & {*inside.parts[:-1]}:
            continue
        stored = file.suffix in WEIGHTS or file.name.endswith(".index.json") or file.name == "config.json"
        if not (len(inside.parts) == 1 and stored):
            yield file


def _matches(inside: PurePath, pattern: str) -> bool:
    parts, patterns = inside.as_posix().lower().split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _included(inside: PurePath, pattern: str) -> bool:
    places = [inside, *inside.parents][:-1]
    return any(fnmatchcase(place.as_posix(), pattern.rstrip("/")) for place in places)


def _stays_inside(file: Path, folder: Path) -> bool:
    """Whether a link leads to a file of the folder, or of the hub's cache, whose snapshots are links to its blobs."""
    real, roots = file.resolve(), [folder.resolve()]
    if folder.parent.name == "snapshots":
        roots.append(folder.parent.parent.resolve() / "blobs")
    return any(real.is_relative_to(root) for root in roots)
