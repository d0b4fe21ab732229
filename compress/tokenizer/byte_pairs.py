"""Byte-pair encoding: pieces are merged of two others, in the order that they were learnt in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import pairwise
from typing import Any

from compress.errors import InputError
from compress.tokenizer.pieces import BYTES, Pieces

Merge = tuple[str, str]


class BytePairs(Pieces):
    """BPE (Sennrich et al., arXiv 1508.07909) as tokenizers do it: of a word's neighbours those are merged that stand
    first in `merges`, the left ones of equal pairs first, until none is left.

    A piece that some text gives comes about the same way in all texts: merges inside of it do not see what is around,
    and one across its border would have made it another. So it has two `parts`. Of a tokenizer that lacks merges, text
    that used none of these is merged as ever: the first of all possible merges is the first of fewer.
    """

    type = "BPE"

    def __init__(self, spec: Mapping[str, Any], *, by_bytes: bool) -> None:
        super().__init__(spec, by_bytes=by_bytes)
        if spec.get("dropout"):
            raise InputError(
                f"model.dropout is {spec['dropout']}, by which a text is cut differently each time; set it to null"
            )
        self.ids: Mapping[str, int] = spec["vocab"]
        self._prefix, self._suffix = spec.get("continuing_subword_prefix") or "", spec.get("end_of_word_suffix") or ""
        self.merges: list[Merge] = [_pair(merge) for merge in spec["merges"]]
        self._known: dict[str, tuple[str, ...]] = {}

    def fixed(self) -> Iterator[int]:
        """The unknown piece; bytes where these stand in for characters, else all characters."""
        yield from self.unknown()
        if self.falls_back:
            yield from (self.ids[byte] for byte in BYTES)
        if self.by_bytes or not self.falls_back:
            yield from (number for piece, number in self.ids.items() if len(self._bare(piece)) == 1)

    def parts(self, piece: str) -> tuple[str, ...]:
        """The two that the last merge puts together; none of a single character, and of a piece that merges do not
        give."""
        ways = self._ways.get(piece, ())
        return ways[0] if len(ways) == 1 else (self._last_merge(piece) if ways else ())

    def reached(self, piece: str) -> bool:
        """All but those that no merge gives, where words are not looked up whole."""
        return bool(self.spec.get("ignore_merges") or len(self._bare(piece)) == 1 or self._last_merge(piece))

    def reduced(self, new: Mapping[int, int]) -> dict[str, Any]:
        """The merges are those whose parts and result stay."""
        vocab = {piece: new[number] for piece, number in self.ids.items() if number in new}
        merges = [
            written
            for written, (one, other) in zip(self.spec["merges"], self.merges, strict=True)
            if one in vocab and other in vocab and self._merged(one, other) in vocab
        ]
        return {**self.spec, "vocab": vocab, "merges": merges}

    def kept_merges(self, new: Mapping[int, int]) -> list[Merge]:
        """The merges of `reduced`, as pairs."""
        return [_pair(merge) for merge in self.reduced(new)["merges"]]

    @cached_property
    def _ways(self) -> dict[str, list[Merge]]:
        """Piece → the merges that give it."""
        found: dict[str, list[Merge]] = {}
        for one, other in self.merges:
            found.setdefault(self._merged(one, other), []).append((one, other))
        return found

    @cached_property
    def _ranks(self) -> dict[Merge, int]:
        return {merge: rank for rank, merge in enumerate(self.merges)}

    def _last_merge(self, piece: str) -> tuple[str, ...]:
        """The last of the merges that put the characters of `piece` together; none where they give something else."""
        if piece not in self._known:
            self._known[piece] = self._merge(piece)
        return self._known[piece]

    def _merge(self, piece: str) -> tuple[str, ...]:
        symbols, last = self._characters(piece), ()
        while len(symbols) > 1:
            pairs = [(self._ranks.get(pair), place) for place, pair in enumerate(pairwise(symbols))]
            possible = [(rank, place) for rank, place in pairs if rank is not None]
            if not possible:
                return ()
            _, place = min(possible)
            last = (symbols[place], symbols[place + 1])
            symbols[place : place + 2] = [self._merged(*last)]
        return last if symbols == [piece] else ()

    def _characters(self, piece: str) -> list[str]:
        """The symbols that merging begins with."""
        inside = self._prefix if self._prefix and piece.startswith(self._prefix) else ""
        bare = self._bare(piece)
        symbols = [(self._prefix if number or inside else "") + letter for number, letter in enumerate(bare)]
        if symbols and self._suffix and piece.endswith(self._suffix):
            symbols[-1] += self._suffix
        return symbols

    def _bare(self, piece: str) -> str:
        """Without what marks the inside or the end of a word."""
        bare = piece.removeprefix(self._prefix) if len(piece) > len(self._prefix) else piece
        return bare.removesuffix(self._suffix) if len(bare) > len(self._suffix) else bare

    def _merged(self, one: str, other: str) -> str:
        return one + other[len(self._prefix) :]


def _pair(merge: Any) -> Merge:
    one, other = merge.split(" ") if isinstance(merge, str) else merge
    return one, other
