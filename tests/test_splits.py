"""Splits whose sizes no attribute holds, or several at once, given those of the plan."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

import compress

RECIPE = [{"prune": "channels", "by": "magnitude", "remove": "50%"}]


class Gated(nn.Module):
    """Parts of 24, 16 and 8 channels, of which the last two together are gated by the first."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = [24, 24 - 8, 8]
        self.up, self.mix, self.down = nn.Linear(16, 48), nn.Linear(8, 8), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        gate, plain, mixed = torch.split(self.up(x), self.sizes, dim=-1)
        return self.down(gate.relu() * torch.cat((plain, self.mix(mixed)), -1))


class Written(Gated):
    """The same with the sizes written into its code."""

    def forward(self, x: Tensor) -> Tensor:
        gate, plain, mixed = self.up(x).split((24, 16, 8), -1)
        return self.down(gate.relu() * torch.cat((plain, self.mix(mixed)), -1))


class Halves(nn.Module):
    """Two halves by `chunk`, of which each is used apart and loses what it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.left, self.right = nn.Linear(16, 32), nn.Linear(16, 10), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.up(x).relu().chunk(2, dim=-1)
        return self.left(left) * self.right(right)


def smaller(module: nn.Module, folder: Path) -> list[tuple[int, ...]]:
    """Shapes of what half of the channels leave, which `prune` verified; opened again it computes the same."""
    x = torch.randn(3, 16)
    found = compress.prune(module, x, RECIPE)
    found.save(folder / "small")
    opened = compress.load(folder / "small", build=type(module))
    torch.testing.assert_close(opened(x), found.module(x))
    return [tuple(weight.shape) for weight in found.module.parameters() if weight.dim() == 2]


def test_parts_of_unequal_sizes_in_a_list(tmp_path: Path) -> None:
    up, mix, down = smaller(Gated(), tmp_path)
    assert up[0] < 48 and up[0] == 2 * down[1] and mix[0] < down[1] < 24


def test_sizes_written_into_the_code(tmp_path: Path) -> None:
    up, mix, down = smaller(Written(), tmp_path)
    assert up[0] < 48 and up[0] == 2 * down[1] and mix[0] < down[1] < 24


def test_chunks_that_lose_different_numbers(tmp_path: Path) -> None:
    module = Halves()
    with torch.no_grad():
        module.up.weight[:12] *= 0.01  # of the first half
    up, left, right = smaller(module, tmp_path)
    assert up[0] == left[1] + right[1] < 32
