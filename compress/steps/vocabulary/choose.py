"""Which tokens stay: those that must, then those that the text uses most, each with what it is merged of."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from compress.errors import BudgetError
from compress.recipe.vocabulary import PruneVocab
from compress.tokenizer.file import TokenizerFile


class Choice:
    """The tokens of a model with `rows` of them, of which text uses `counts` int64 `[rows]` and those of `named` must
    stay.

    A token that goes is spelled by its parts, so these inherit its count; no part counts less than the whole, and the
    tokens that are used most are whole with their parts, however many they are. That is the order of removing, again
    and again, the least used token that is no part of another (Purason et al., arXiv 2512.03989).
    """

    def __init__(self, tokenizer: TokenizerFile, counts: np.ndarray, named: Iterable[int]) -> None:
        self.rows, pieces = len(counts), tokenizer.pieces
        depths = _depths(tokenizer)
        uses, useless = counts.astype(np.int64), np.ones(self.rows, bool)
        for number in sorted(depths, key=lambda number: -depths[number][0]):
            useless[number] = not uses[number] and not pieces.reached(depths[number][1])
            for part in pieces.parts(depths[number][1]):
                uses[pieces.ids[part]] += uses[number]
        useless[list(tokenizer.added.values())] = False
        needed = np.zeros(self.rows, bool)
        open_ = {*tokenizer.fixed(), *named}
        while open_:
            number = open_.pop()
            if not needed[number]:
                needed[number] = True
                if number in depths:
                    open_.update(pieces.ids[part] for part in pieces.parts(depths[number][1]))
        self.needed = needed
        depth = np.array([depths[number][0] if number in depths else 0 for number in range(self.rows)])
        # Needed ones first, rows that no text reaches last; of equal uses parts come before the whole.
        self.order = np.lexsort((np.arange(self.rows), depth, -uses, useless, ~needed))
        self.unused = self.rows - int((needed | (uses > 0)).sum())

    def kept(self, step: PruneVocab) -> np.ndarray:
        """The tokens that stay, bool `[rows]`. Raises BudgetError where the budget cannot be met."""
        count = self._count(step)
        mask = np.zeros(self.rows, bool)
        mask[self.order[:count]] = True
        return mask

    def _count(self, step: PruneVocab) -> int:
        multiple, least = step.round, int(self.needed.sum())
        if step.remove == "unused":
            wanted = self.rows - self.unused
            count = -(-wanted // multiple) * multiple  # up: all that is used stays
            if count >= self.rows:
                rounded = f", rounded up to a multiple of {multiple}," if multiple > 1 else ""
                raise BudgetError(
                    f"remove: unused: {wanted} of {self.rows} tokens are used or must stay{rounded} so none goes; ask "
                    "for a share (`remove: 20%`), or count a text of fewer words"
                )
            return count
        if step.keep is not None:
            asked, wanted = f"keep: tokens: {step.keep['tokens']}", step.keep["tokens"]
        else:
            assert isinstance(step.remove, float)
            asked, wanted = f"remove: {step.remove:.4g}", int((1 - step.remove) * self.rows)
        count = wanted // multiple * multiple
        if count >= self.rows:
            raise BudgetError(f"{asked}: the model has {self.rows} tokens, so none goes; ask for fewer")
        if count < least:
            nearest = -(-least // multiple) * multiple
            raise BudgetError(
                f"{asked}: {least} tokens must stay (bytes or characters, special tokens, those that configs and the "
                f"chat template name, and what they are merged of); the nearest is `keep: {{tokens: {nearest}}}`"
            )
        return count


def _depths(tokenizer: TokenizerFile) -> dict[int, tuple[int, str]]:
    """Id → how many merges lie above each other in the piece, and the piece."""
    pieces, found = tokenizer.pieces, dict[str, int]()
    for piece in pieces.ids:
        path = [piece]
        while path:
            missing = [part for part in pieces.parts(path[-1]) if part not in found]
            if missing:
                path += missing
                continue
            last = path.pop()
            found[last] = 1 + max((found[part] for part in pieces.parts(last)), default=-1)
    return {pieces.ids[piece]: (depth, piece) for piece, depth in found.items()}
