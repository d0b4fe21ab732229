"""Sums over tokens, from which statistics follow. Sums of several processes add up to those of one."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

ROWS = 256
"""Tokens squared at a time: a piece that stays in the processor's cache, and is worth two threads."""

STRIP = 256
"""Rows of a Gram matrix that are added up at a time, from the diagonal on: nearly half of a wide one is its mirror."""


@dataclass
class Totals:
    """Named sums of one weight or block, float64 (a Gram matrix float32), over `tokens` of `sequences` samples.

    Where batches have token weights, each token counts as much as its weight. For stacked experts the sums have a first
    dimension more, and `tokens` are those of each expert, `[experts, 1]`.
    """

    sequences: int
    tokens: float | Tensor = 0
    sums: dict[str, Tensor] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        return self.sums[name]

    def count(self, tokens: int, weight: Tensor | None) -> None:
        """Add `tokens`, each with its `weight` `[tokens]` or, without one, as 1."""
        assert not isinstance(self.tokens, Tensor)
        self.tokens += tokens if weight is None else float(double(weight).sum())

    def add(self, name: str, value: Tensor) -> None:
        """Add to a sum, which starts at zero."""
        if name in self.sums:
            self.sums[name] += value
        else:
            self.sums[name] = value.clone()


def moments(x: Tensor, names: frozenset[str], weight: Tensor | None = None) -> dict[str, Tensor]:
    """Sums over the tokens of x `[tokens, in]`: `sum`, `square` (of x²), `absolute`, each float64 `[in]`.

    With a `weight` `[tokens]` each token counts as much as that says.

    For both of the first two, x is shifted by the mean of a few tokens first: float32 sums of squares would lose the
    variance of channels whose mean is far from zero.
    """
    rows = ROWS if x.device.type == "cpu" else 4096
    shift = x[:64].float().mean(0) if {"sum", "square"} <= names else torch.zeros(x.shape[1], device=x.device)
    buffer = torch.empty(min(rows, len(x)), x.shape[1], device=x.device)
    ones = torch.ones(1, len(buffer), device=x.device)
    total, square, absolute = (torch.zeros(1, x.shape[1], device=x.device) for _ in range(3))
    for i, piece in enumerate(x.split(rows)):
        part, piece = buffer[: len(piece)], piece.float()
        one = ones[:, : len(piece)] if weight is None else weight[None, i * rows : i * rows + len(piece)]
        if "sum" in names:
            total.addmm_(one, torch.sub(piece, shift, out=part))
        if "square" in names:
            base = part if "sum" in names else piece
            square.addmm_(one, torch.mul(base, base, out=part))
        if "absolute" in names:
            absolute.addmm_(one, torch.abs(piece, out=part))
    total, square, absolute, shift = (double(t).reshape(-1) for t in (total, square, absolute, shift))
    count = len(x) if weight is None else double(weight).sum()
    found = {
        "sum": total + count * shift,
        "square": square + 2 * shift * total + count * shift.square(),
        "absolute": absolute,
    }
    return {name: found[name] for name in names & found.keys()}


def add_gram(gram: Tensor, x: Tensor, weight: Tensor | None = None) -> None:
    """Adds xᵀx of x `[tokens, in]` to `gram` `[in, in]`, on and above the diagonal; `mirror` fills in the rest.

    With a `weight` `[tokens]` each token counts as much as that says.
    """
    size = max(len(x), 1) if x.dtype == torch.float32 else 4096
    for i, piece in enumerate(x.split(size)):
        piece = piece.float()
        left = piece if weight is None else piece * weight[i * size : i * size + len(piece), None]
        for start in range(0, len(gram), STRIP):
            strip = slice(start, start + STRIP)
            gram[strip, start:].addmm_(left[:, strip].T, piece[:, start:])


def mirror(gram: Tensor) -> None:
    """Fills in what `add_gram` leaves out, in place; `[in, in]` or `[experts, in, in]`."""
    for start in range(0, gram.shape[-1], STRIP):
        stop = start + STRIP
        gram[..., stop:, start:stop] = gram[..., start:stop, stop:].mT


def double(tensor: Tensor) -> Tensor:
    """As float64, on the processor where the device has none."""
    return tensor.cpu().double() if tensor.device.type == "mps" else tensor.double()


def projection(x: Tensor, weight: Tensor, units: list[Tensor], token_weight: Tensor | None = None) -> Tensor:
    """Σ over tokens of ‖x_u · W_uᵀ‖₁ per unit, float64 `[units]`; x `[tokens, in]`, weight `[out, in]`.

    `units` are the input positions of each unit. A unit of one position counts |x| alone, as AMP has it. With a
    `token_weight` `[tokens]` each token counts as much as that says.
    """
    if all(len(unit) == 1 for unit in units):
        return moments(x, frozenset({"absolute"}), token_weight)["absolute"][torch.cat(units).to(x.device)]
    found = []
    for unit in units:
        place = unit.to(x.device)
        sizes = (x[:, place].float() @ weight[:, place].float().T).abs_()
        found.append(double(sizes.sum() if token_weight is None else sizes.sum(1) @ token_weight))
    return torch.stack(found)


def cosines(before: Tensor, after: Tensor, weight: Tensor | None = None) -> dict[str, Tensor]:
    """Sums over tokens of `cosine` and `angle` (share of π) between `[…, hidden]` before and after a block.

    With a `weight` `[tokens]` each token counts as much as that says.
    """
    cosine = torch.cosine_similarity(before.float(), after.float(), dim=-1).clamp(-1, 1)
    angle = cosine.acos()
    if weight is not None:
        cosine, angle = cosine.flatten() * weight, angle.flatten() * weight
    return {"cosine": double(cosine.sum()), "angle": double(angle.sum()) / torch.pi}
