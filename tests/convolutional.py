"""Small networks of convolutions, each with what it is given and what of it may go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Branch(nn.Module):
    """Its input plus, or joined with, what some layers make of it."""

    def __init__(self, *layers: nn.Module, join: Callable[[Tensor, Tensor], Tensor] = torch.add) -> None:
        super().__init__()
        self.layers, self.join = nn.Sequential(*layers), join

    def forward(self, x: Tensor) -> Tensor:
        return self.join(x, self.layers(x))


def beside(x: Tensor, made: Tensor) -> Tensor:
    return torch.cat([x, made], 1)


def conv(inside: int, outside: int, kernel: int = 3, *, norm: bool = True, **options: Any) -> nn.Module:
    layer = nn.Conv2d(inside, outside, kernel, padding=kernel // 2, bias=not norm, **options)
    return nn.Sequential(layer, nn.BatchNorm2d(outside), nn.ReLU()) if norm else layer


def plain() -> nn.Module:
    pool = nn.MaxPool2d(2)
    return nn.Sequential(conv(3, 6), pool, conv(6, 8, stride=2), conv(8, 7, norm=False), nn.Flatten(), nn.Linear(28, 5))


def residual() -> nn.Module:
    blocks = [Branch(conv(6, 4), conv(4, 6, 1)) for _ in range(2)]
    return nn.Sequential(conv(3, 6), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))


class Stages(nn.Module):
    """A residual network of two stages, whose first layer changes the width."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 6)
        self.stages = nn.ModuleList([self.stage(6, 6, 1), self.stage(6, 8, 2)])
        self.head = nn.Linear(8, 5)

    def stage(self, inside: int, outside: int, stride: int) -> nn.Module:
        return nn.Sequential(
            *(Layer(inside if i == 0 else outside, outside, stride if i == 0 else 1) for i in range(3))
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.head(x.mean((2, 3)))


class Layer(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(conv(inside, 5, stride=stride), conv(5, outside, norm=False))
        self.shortcut = conv(inside, outside, 1, norm=False, stride=stride) if inside != outside else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.branch(x) + self.shortcut(x))


def dense() -> nn.Module:
    return nn.Sequential(
        conv(3, 4), Branch(conv(4, 5), join=beside), Branch(conv(9, 6), join=beside), conv(15, 5, 1, norm=False)
    )


def depthwise() -> nn.Module:
    inverted = Branch(conv(6, 12, 1), conv(12, 12, groups=12), nn.Hardswish(), conv(12, 6, 1))
    wider = conv(6, 12, groups=6)  # two of each channel
    return nn.Sequential(conv(3, 6), inverted, wider, conv(12, 5, 1, norm=False))


class Excite(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.reduce, self.expand = conv(width, inner, 1, norm=False), conv(inner, width, 1, norm=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.expand(F.silu(self.reduce(F.adaptive_avg_pool2d(x, 1)))))


def squeezed() -> nn.Module:
    return nn.Sequential(conv(3, 6), Branch(conv(6, 8), Excite(8, 3), conv(8, 6, 1)), conv(6, 5, norm=False))


def grouped() -> nn.Module:
    return nn.Sequential(conv(3, 12, 1), conv(12, 8, groups=4), nn.GroupNorm(4, 8), conv(8, 5, 1, norm=False))


class Decoder(nn.Module):
    """Down by pooling, up by transposed convolutions and by interpolation, with connections across."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.bottom = conv(3, 4), conv(4, 6), conv(6, 8)
        self.up, self.join = nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2), conv(12, 7)
        self.out = conv(11, 5, norm=False)

    def forward(self, x: Tensor) -> Tensor:
        one = self.first(x)
        two = self.second(F.avg_pool2d(one, 2))
        up = self.up(self.bottom(F.max_pool2d(two, 2)))
        x = self.join(beside(up, two))
        return self.out(beside(F.interpolate(x, scale_factor=2, mode="bilinear"), one))


def shuffled() -> nn.Module:
    return nn.Sequential(
        conv(3, 16), nn.PixelShuffle(2), conv(4, 6), nn.PixelUnshuffle(2), conv(24, 8, 1), nn.ChannelShuffle(2),
        conv(8, 5, norm=False),
    )  # fmt: skip


def signal() -> nn.Module:
    branch = Branch(nn.Conv1d(6, 9, 3, padding=1), nn.InstanceNorm1d(9, affine=True), nn.GELU(),
                    nn.ConvTranspose1d(9, 6, 3, padding=1))  # fmt: skip
    gated = nn.Sequential(nn.Conv1d(6, 10, 1), nn.GLU(1), nn.utils.parametrizations.weight_norm(nn.Conv1d(5, 4, 3)))
    return nn.Sequential(nn.Conv1d(3, 6, 5, stride=2), branch, *gated, nn.Upsample(scale_factor=2, mode="linear"))


def volume() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(3, 6, 3, padding=1), nn.BatchNorm3d(6), nn.Hardswish(), nn.MaxPool3d(2), nn.Conv3d(6, 6, 3, groups=6),
        nn.Conv3d(6, 7, 1), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(7, 5),
    )  # fmt: skip


class Recurrent(nn.Module):
    """Frames of a signal read one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.frames, self.lstm, self.gru = nn.Conv1d(3, 6, 3), nn.LSTM(6, 7, batch_first=True), nn.GRU(7, 5)
        self.out = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(self.frames(x).transpose(1, 2))
        return self.out(self.gru(states.transpose(0, 1))[0])


IMAGE, SIGNAL, VOLUME = (3, 8, 8), (3, 12), (3, 6, 6, 6)
# Model, what it is given, and the sizes of the families that may lose groups.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, list[int]]]] = {
    "plain": (plain, IMAGE, {"channels": [6, 7, 8]}),
    "residual": (residual, IMAGE, {"channels": [4, 4], "hidden": [6], "layers": [2]}),
    "stages": (Stages, IMAGE, {"channels": [5] * 6, "hidden": [6, 8], "layers": [2, 3]}),
    "dense": (dense, IMAGE, {"channels": [4, 5, 6]}),
    "depthwise": (depthwise, IMAGE, {"channels": [2, 12], "hidden": [6]}),
    "squeezed": (squeezed, IMAGE, {"channels": [3, 8], "hidden": [6]}),
    "grouped": (grouped, IMAGE, {"channels": [3, 4]}),
    "decoder": (Decoder, IMAGE, {"channels": [2, 3, 4, 4, 6, 7]}),
    "shuffled": (shuffled, IMAGE, {"channels": [4, 4, 6]}),
    "signal": (signal, SIGNAL, {"channels": [5, 9], "hidden": [6]}),
    "volume": (volume, VOLUME, {"channels": [6, 7]}),
    "recurrent": (Recurrent, SIGNAL, {"channels": [5, 6, 7]}),
}
