"""The contract of a tokenizer's model: its pieces, which of them must stay, and what is left when others go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
"""How tokenizers spell a byte that no piece covers (`byte_fallback`)."""


class Pieces(ABC):
    """The `model` of a tokenizer.json. `ids`: piece → id.

    Whichever pieces go, as long as those of `fixed` stay and every piece has its `parts`: text whose pieces all stay is
    cut into the very same ones, and other text is spelled by smaller ones. `by_bytes` says whether the tokenizer's
    alphabet are bytes (`ByteLevel`).
    """

    type: ClassVar[str]
    ids: Mapping[str, int]

    def __init__(self, spec: Mapping[str, Any], *, by_bytes: bool) -> None:
        self.spec, self.by_bytes = spec, by_bytes

    @property
    def falls_back(self) -> bool:
        """Whether a character without a piece is spelled by its bytes."""
        return bool(self.spec.get("byte_fallback")) and all(byte in self.ids for byte in BYTES)

    @abstractmethod
    def fixed(self) -> Iterator[int]:
        """Ids of the pieces without which some text could no longer be spelled."""

    def parts(self, piece: str) -> tuple[str, ...]:
        """The pieces that `piece` is merged of, which must stay with it and take its place; none where it is found
        whole."""
        return ()

    def reached(self, piece: str) -> bool:
        """Whether any text can give the piece."""
        return True

    @abstractmethod
    def reduced(self, new: Mapping[int, int]) -> dict[str, Any]:
        """The `model` with the pieces of `new` alone, old id → new id in the same order."""

    def unknown(self) -> Iterator[int]:
        """The id of what stands for text without pieces."""
        piece = self.spec.get("unk_token")
        if piece is not None and piece in self.ids:
            yield self.ids[piece]
