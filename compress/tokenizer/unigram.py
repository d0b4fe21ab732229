"""Unigram: the segmentation of a text whose pieces' scores have the greatest sum."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from compress.tokenizer.pieces import BYTES, Pieces


class Unigram(Pieces):
    """The unigram language model (Kudo, arXiv 1804.10959) of T5 and XLM-R; ids are places in its list.

    The best segmentation of all is the best of fewer, as long as unknown characters cost the same: ten less than the
    lowest score of all pieces, which therefore stays.
    """

    type = "Unigram"

    def __init__(self, spec: Mapping[str, Any], *, by_bytes: bool) -> None:
        super().__init__(spec, by_bytes=by_bytes)
        self.ids: Mapping[str, int] = {piece: number for number, (piece, _) in enumerate(spec["vocab"])}

    def fixed(self) -> Iterator[int]:
        """The unknown and the cheapest piece; bytes where these stand in for characters, else all characters and the
        pieces with one that there is not alone."""
        yield from self.unknown()
        scores = [score for _, score in self.spec["vocab"]]
        yield scores.index(min(scores))
        if self.falls_back:
            yield from (self.ids[byte] for byte in BYTES)
            return
        for piece, number in self.ids.items():
            if len(piece) == 1 or any(letter not in self.ids for letter in piece):
                yield number

    def unknown(self) -> Iterator[int]:
        if self.spec.get("unk_id") is not None:
            yield self.spec["unk_id"]

    def reduced(self, new: Mapping[int, int]) -> dict[str, Any]:
        """The list keeps its order, which the new ids have too."""
        vocab = [entry for number, entry in enumerate(self.spec["vocab"]) if number in new]
        unknown = self.spec.get("unk_id")
        return {**self.spec, "vocab": vocab, "unk_id": None if unknown is None else new[unknown]}
