"""The files beside a checkpoint's weights that number tokens, with other numbers; those that cannot be are left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from compress.errors import InputError
from compress.tokenizer.byte_pairs import BytePairs
from compress.tokenizer.file import NAME, TokenizerFile
from compress.tokenizer.named import Named

CONFIGS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)
"""Files whose keys may name tokens by number."""

STALE = ("*.model", "*.spm", "*.tiktoken", "tekken.json", "bpe.codes", "dict*.txt", "vocab.*", "vocab-*.json")
"""Vocabularies in forms that are not written anew. Software that finds one would take it before tokenizer.json."""

Changed = dict[str, str | None]
"""Path below the folder → its new content, None where the file does not go along."""


def tokenizer_file(folder: Path, side_files: Sequence[Path]) -> TokenizerFile:
    """The folder's tokenizer.json, whose like nothing but `tokenizers` knows how to rewrite exactly.

    Raises InputError where there is none, or its tokenizer comes with code.
    """
    names = {file.relative_to(folder).as_posix(): file for file in side_files}
    config = _read(names["tokenizer_config.json"]) if "tokenizer_config.json" in names else {}
    if "AutoTokenizer" in (config.get("auto_map") or {}):
        raise InputError(
            f"{names['tokenizer_config.json']}: auto_map: the tokenizer is code of the checkpoint's own, and what it "
            "makes of other files is not known; leave `prune: vocab` out"
        )
    if NAME in names:
        return TokenizerFile(names[NAME])
    others = sorted(name for name in names if any(fnmatchcase(name, pattern) for pattern in STALE))
    there = f"only {', '.join(others)}" if others else "no tokenizer"
    raise InputError(
        f"{folder}: {there}, and pieces are taken out of a {NAME}; AutoTokenizer.from_pretrained(FOLDER)."
        "save_pretrained(FOLDER) writes one"
    )


def named_beside(folder: Path, side_files: Sequence[Path], rows: int) -> list[Named]:
    """The ids that each of the folder's configs names, `config.json` apart."""
    found = []
    for file in side_files:
        if file.relative_to(folder).as_posix() in CONFIGS:
            data = {key: value for key, value in _read(file).items() if key != "added_tokens_decoder"}
            found.append(Named(str(file), rows).read(data))
    return found


def changed_files(
    folder: Path, side_files: Sequence[Path], tokenizer: TokenizerFile, new: Mapping[int, int], rows: int
) -> Changed:
    """All `side_files` that number the tokens of a vocabulary of `rows`, for one of `new`, old id → new id.

    Raises InputError where a file disagrees with tokenizer.json on what a token's number is.
    """
    found: Changed = {}
    for file in side_files:
        name = file.relative_to(folder).as_posix()
        if name in CONFIGS:
            data = _read(file)
            tokens = data.pop("added_tokens_decoder", None)
            changed: dict[str, Any] = Named(str(file), rows).renumbered(data, new)
            if tokens is not None:
                changed["added_tokens_decoder"] = {
                    str(new[_number(file, tokenizer, token["content"], int(number))]): token
                    for number, token in tokens.items()
                }
            found[name] = _json(changed)
        elif name in WRITERS:
            found[name] = WRITERS[name](file, tokenizer, new)
        elif any(fnmatchcase(name.lower(), pattern) for pattern in STALE):
            found[name] = None
    return found


def _tokenizer(file: Path, tokenizer: TokenizerFile, new: Mapping[int, int]) -> str:
    return _json(tokenizer.renumbered(new))


def _mapping(file: Path, tokenizer: TokenizerFile, new: Mapping[int, int]) -> str:
    """Tokens and their numbers: vocab.json, added_tokens.json."""
    numbers = {token: _number(file, tokenizer, token, number) for token, number in _read(file).items()}
    return _json({token: new[number] for token, number in numbers.items() if number in new})


def _lines(file: Path, tokenizer: TokenizerFile, new: Mapping[int, int]) -> str:
    """A token a line, its number that of the line: vocab.txt."""
    lines = _text(file).split("\n")
    lines = lines[:-1] if lines[-1] == "" else lines
    tokens = {_number(file, tokenizer, line.rstrip("\r"), number): line for number, line in enumerate(lines)}
    return "".join(f"{line}\n" for number, line in tokens.items() if number in new)


def _merges(file: Path, tokenizer: TokenizerFile, new: Mapping[int, int]) -> str:
    """A merge a line, behind a line that says the version: merges.txt."""
    if not isinstance(tokenizer.pieces, BytePairs):
        raise InputError(f"{file}: lists merges, and {tokenizer.path} has none; remove one of them")
    head, *lines = _text(file).rstrip("\n").split("\n")
    if not head.startswith("#version"):
        head, lines = "", [head, *lines]
    if [tuple(line.split(" ")) for line in lines] != tokenizer.pieces.merges:
        raise InputError(f"{file}: its merges are not those of {tokenizer.path}; save the tokenizer again")
    kept = [" ".join(pair) for pair in tokenizer.pieces.kept_merges(new)]
    return "".join(f"{line}\n" for line in ([head] if head else []) + kept)


WRITERS: dict[str, Callable[[Path, TokenizerFile, Mapping[int, int]], str]] = {
    NAME: _tokenizer,
    "vocab.json": _mapping,
    "added_tokens.json": _mapping,
    "vocab.txt": _lines,
    "merges.txt": _merges,
}


def _number(file: Path, tokenizer: TokenizerFile, token: str, number: int) -> int:
    """The number, which tokenizer.json must give the token too."""
    if (known := tokenizer.ids.get(token)) != number:
        said = "does not know it" if known is None else f"calls it {known}"
        raise InputError(f"{file}: {token!r} is {number}, and {tokenizer.path} {said}; save the tokenizer again")
    return number


def _text(file: Path) -> str:
    try:
        with file.open(encoding="utf-8", newline="") as opened:  # tokens may be line ends of other systems
            return opened.read()
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read as text ({error})") from None


def _read(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(_text(file))
    except ValueError as error:
        raise InputError(f"{file}: not valid JSON ({error})") from None
    if not isinstance(data, dict):
        raise InputError(f"{file}: not a mapping")
    return data


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def notes_of(named: Sequence[Named]) -> Iterator[str]:
    """What a user must know of ids that were left as they are, a sentence each."""
    for one in named:
        if one.foreign:
            yield f"{one.file}: {', '.join(one.foreign)}: has a vocabulary of its own, so its ids were left as they are"
        if one.unsure:
            yield f"{one.file}: {', '.join(one.unsure)}: may hold token ids, which were left as they are; check them"
