"""Pictures cut into tiles and put together again without their margins: LLaVA-NeXT, LLaVA-OneVision."""

from __future__ import annotations

import inspect
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from compress.registry import token_places
from compress.runtime.tokens.places.fixed import ratio
from compress.runtime.tokens.places.kind import Grid, Places, Seen, side_of, square, uneven


@token_places.add("tiled")
class Tiled(Places):
    """An overview and tiles. The model's own packing, run over the numbers of the patches, says where each one went."""

    @classmethod
    def fits(cls, core: nn.Module) -> bool:
        return hasattr(core, "pack_image_features")

    def watched(self, undo: ExitStack) -> None:
        core: Any = self.core
        pack = core.pack_image_features
        signature = inspect.signature(pack)
        self._maps: list[Tensor] = []
        self._tokens = 0

        def told(*args, **kwargs):
            given = signature.bind(*args, **kwargs).arguments
            features, first, numbers = given["image_features"], 0, []
            for one in features:
                tiles, tokens = one.shape[:2]
                numbers.append(torch.arange(first, first + tiles * tokens).double().view(tiles, tokens, 1))
                first += tiles * tokens
            newline = given.get("image_newline")
            if newline is not None:
                given = {**given, "image_newline": torch.tensor([-1.0]).double()}
            self._maps = list(pack(**{**given, "image_features": numbers})[0])
            self._tokens = features[0].shape[1] if len(features) else 0
            return pack(*args, **kwargs)

        core.pack_image_features = told
        undo.callback(delattr, core, "pack_image_features")

    def grids(self, seen: Seen) -> list[list[Grid]]:
        if seen.hidden is None:
            return [[Grid(torch.arange(tokens), None, None)] for tokens in seen.counts]
        each, outputs = self._tokens, int(seen.hidden.shape[1])
        side = side_of(outputs, each)
        if side > 1:
            raise uneven(self.core, f"{outputs} outputs of the tower make {each} tokens")
        return [self._grids(one.view(-1), each, outputs - each, ratio(seen.given)) for one in self._maps]

    @staticmethod
    def _grids(numbers: Tensor, each: int, prefix: int, ratio: float) -> list[Grid]:
        """The overview's grid, and that of all tiles as they were put together."""
        places = torch.arange(len(numbers))
        real = numbers >= 0
        lines = int((~real).sum())
        overview = places[:each]
        found = [Grid(overview, square(each, ratio), _units(numbers[:each]), prefix)]
        rest = places[each:][real[each:]]
        if len(rest):
            shape = (lines, len(rest) // lines) if lines and len(rest) % lines == 0 else None
            found.append(Grid(rest, shape, _units(numbers[rest]), prefix))
        return found


def _units(numbers: Tensor) -> Tensor | None:
    """None where tokens were mixed, as in pictures that are made smaller once more."""
    whole = numbers.round()
    return whole.long()[:, None] if torch.allclose(numbers, whole, atol=1e-6, rtol=0) else None
