"""WordPiece: of a word the longest piece that it begins with, then the longest that goes on, and so forth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from compress.tokenizer.pieces import Pieces


class WordPieces(Pieces):
    """WordPiece as BERT has it (arXiv 1810.04805); pieces inside a word bear a prefix, `##`.

    The longest of all pieces is the longest of fewer, so that text whose pieces stay is cut as ever.
    """

    type = "WordPiece"

    def __init__(self, spec: Mapping[str, Any], *, by_bytes: bool) -> None:
        super().__init__(spec, by_bytes=by_bytes)
        self.ids: Mapping[str, int] = spec["vocab"]
        self._prefix = spec.get("continuing_subword_prefix") or "##"

    def fixed(self) -> Iterator[int]:
        """The unknown piece, single characters, and pieces with a character that there is not alone."""
        yield from self.unknown()
        for piece, number in self.ids.items():
            symbols = self._characters(piece)
            if len(symbols) == 1 or any(symbol not in self.ids for symbol in symbols):
                yield number

    def reduced(self, new: Mapping[int, int]) -> dict[str, Any]:
        vocab = {piece: new[number] for piece, number in self.ids.items() if number in new}
        return {**self.spec, "vocab": vocab}

    def _characters(self, piece: str) -> list[str]:
        """What `piece` is spelled by, one character each."""
        inside = piece.startswith(self._prefix) and piece != self._prefix
        bare = piece.removeprefix(self._prefix) if inside else piece
        return [(self._prefix if number or inside else "") + letter for number, letter in enumerate(bare)]
