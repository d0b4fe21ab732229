"""A tokenizer.json: its pieces and added tokens, what names tokens by number, and the file with other numbers."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

from compress.errors import InputError
from compress.tokenizer.byte_pairs import BytePairs
from compress.tokenizer.pieces import Pieces
from compress.tokenizer.unigram import Unigram
from compress.tokenizer.word_pieces import WordPieces

NAME = "tokenizer.json"
KINDS: dict[str, type[Pieces]] = {kind.type: kind for kind in (BytePairs, WordPieces, Unigram)}
PIPELINE = ("normalizer", "pre_tokenizer", "decoder")
"""Steps that name characters and pieces by their text, and nothing by number."""

SEQUENCES = ("normalizers", "pretokenizers", "processors", "decoders")
"""Where a step of type `Sequence` has those that it is made of."""


class TokenizerFile:
    """The tokenizer.json at `path`. Raises InputError for one that pieces cannot be taken out of, with the cure."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text = path.read_text(encoding="utf-8")
            self.data: dict[str, Any] = json.loads(text)
            kind, spec = self._kind(), self.data["model"]
            self.digest = blake2b(text.encode(), digest_size=16).hexdigest()
            by_bytes = any(step.get("type") == "ByteLevel" for name in PIPELINE for step in _steps(self.data.get(name)))
            self.pieces = kind(spec, by_bytes=by_bytes)
            self.added: dict[str, int] = {token["content"]: token["id"] for token in self.data["added_tokens"]}
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: not a tokenizer's file ({type(error).__name__}: {error})") from None
        for token, number in self.added.items():
            if self.pieces.ids.get(token, number) != number:
                raise InputError(
                    f"{path}: {token!r} is {number} among added_tokens and {self.pieces.ids[token]} in the vocabulary; "
                    "save the tokenizer again with save_pretrained"
                )

    @cached_property
    def ids(self) -> dict[str, int]:
        """Every token's id."""
        return {**self.pieces.ids, **self.added}

    def fixed(self) -> set[int]:
        """Ids that must stay: what the pieces ask for, added tokens, and whatever another part of the file names."""
        found = {*self.pieces.fixed(), *self.added.values()}
        found.update(number for place in _places(self.data.get("post_processor"), self.path) for number in place())
        if self.data.get("padding"):
            found.add(self.data["padding"]["pad_id"])
        texts = (text for name in PIPELINE for text in _texts(self.data.get(name)))
        return found | {self.pieces.ids[text] for text in texts if text in self.pieces.ids}

    def renumbered(self, new: Mapping[int, int]) -> dict[str, Any]:
        """The file's content with the tokens of `new` alone, old id → new id in the same order.

        Raises InputError where a token is gone that must stay, or a piece without its parts stays.
        """
        self.check(new)
        data = copy.deepcopy({name: value for name, value in self.data.items() if name != "model"})
        for token in data["added_tokens"]:
            token["id"] = new[token["id"]]
        for place in _places(data.get("post_processor"), self.path):
            place(new)
        if data.get("padding"):
            data["padding"]["pad_id"] = new[data["padding"]["pad_id"]]
        return {name: self.pieces.reduced(new) if name == "model" else data[name] for name in self.data}

    def check(self, new: Mapping[int, int]) -> None:
        """Raises InputError where a token is gone that must stay, or a piece is there without its parts."""
        names = {number: token for token, number in self.ids.items()}
        if lost := sorted(self.fixed() - new.keys()):
            raise InputError(f"{self.path}: {names.get(lost[0], lost[0])!r} cannot go; plan anew")
        for piece, number in self.pieces.ids.items():
            if number in new and any(self.pieces.ids[part] not in new for part in self.pieces.parts(piece)):
                raise InputError(f"{self.path}: {piece!r} cannot be merged, as a part of it goes; plan anew")

    def _kind(self) -> type[Pieces]:
        """By its `type`, which files of older versions lack."""
        spec = self.data["model"]
        guess = "BPE" if "merges" in spec else "Unigram" if "unk_id" in spec else "WordPiece"
        named = spec.get("type") or guess
        if named not in KINDS:
            why = (
                "it cannot spell a word that goes"
                if named == "WordLevel"
                else "how its pieces hang together is unknown"
            )
            raise InputError(
                f"model.type is {named}: {why}, so its vocabulary is not pruned (known: {', '.join(KINDS)}); leave "
                "`prune: vocab` out"
            )
        return KINDS[named]


def _steps(step: Any) -> Iterator[dict[str, Any]]:
    """A step of the pipeline, or all those of a sequence."""
    if isinstance(step, dict):
        yield step
        for inner in (inner for key in SEQUENCES for inner in step.get(key, ())):
            yield from _steps(inner)


def _texts(value: Any) -> Iterator[str]:
    """The texts in a part of the file, types left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key not in ("type", "precompiled_charsmap"):
                yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


class _Place:
    """Where a post-processor holds ids: `holder[key]` is a list of which those from `start` on are ids."""

    def __init__(self, holder: Any, key: str, start: int = 0) -> None:
        self._holder, self._key, self._start = holder, key, start

    def __call__(self, new: Mapping[int, int] | None = None) -> list[int]:
        """The ids that stand there, given `new` ones first."""
        held: list[Any] = self._holder[self._key]
        if new is not None:
            held = self._holder[self._key] = [*held[: self._start], *(new[number] for number in held[self._start :])]
        return held[self._start :]


def _places(processor: Any, path: Path) -> Iterator[_Place]:
    """Wherever a post-processor names tokens by number. Raises InputError for one that is not known."""
    for step in _steps(processor):
        kind = step.get("type")
        if kind == "TemplateProcessing":
            for token in step["special_tokens"].values():
                yield _Place(token, "ids")
        elif kind in ("BertProcessing", "RobertaProcessing"):
            yield _Place(step, "sep", 1)
            yield _Place(step, "cls", 1)
        elif kind not in ("ByteLevel", "Sequence"):
            raise InputError(
                f"{path}: post_processor.type is {kind}, and where that holds ids is unknown; leave `prune: vocab` out"
            )
