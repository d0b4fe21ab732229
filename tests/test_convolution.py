"""Networks of convolutions: what may go of them, and that what is left computes the whole with those channels zero."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from compress.graph.example import Example
from compress.graph.families import Graph
from compress.graph.trace import trace
from compress.surgery.take import take

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


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
    return nn.Sequential(
        conv(3, 6), pool, conv(6, 8, stride=2), conv(8, 7, norm=False), nn.Flatten(), nn.Linear(28, 5)
    )


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
        return nn.Sequential(*(Layer(inside if i == 0 else outside, outside, stride if i == 0 else 1) for i in range(3)))

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


def inputs(name: str, rows: int = 2) -> Tensor:
    return torch.randn(rows, *NETWORKS[name][1], generator=torch.Generator().manual_seed(3))


@cache
def network(name: str) -> nn.Module:
    """With random weights, none of them constant, big enough that a wrong slice shows."""
    torch.manual_seed(0)
    model = NETWORKS[name][0]().eval()
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(0.4 * torch.randn_like(tensor) + ("running_var" in key) * 2)
    return model


class Named(nn.Module):
    """A network of one tensor, by name."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


@cache
def graph(name: str) -> Graph:
    empty = Named(copy.deepcopy(network(name))).to("meta")
    return trace(empty, Example({"x": inputs(name).to("meta")}, {"batch": ("x", 0)}))


def free(name: str) -> list[Any]:
    return [family for family in graph(name).families.values() if family.pinned is None]


def small(name: str, kept: dict[str, np.ndarray]) -> nn.Module:
    """The network without the groups: tensors cut, groups as many as its inputs leave."""
    found, model = graph(name), copy.deepcopy(network(name))
    for key, tensor in model.state_dict(keep_vars=True).items():
        tensor = tensor.data
        for dim, mask in found.masks(f"model.{key}", kept).items():
            tensor = take(tensor, dim, np.flatnonzero(mask))
        owner, _, own = key.rpartition(".")
        module = model.get_submodule(owner)
        if own in module._buffers:
            module._buffers[own] = tensor
        else:
            module._parameters[own] = nn.Parameter(tensor)
    for module in model.modules():
        if isinstance(module, CONVOLUTIONS):
            module.register_forward_pre_hook(_count_groups)
        elif isinstance(module, nn.GroupNorm):
            module.num_groups, module.num_channels = (
                module.num_groups * len(module.weight) // module.num_channels,
                len(module.weight),
            )
        elif isinstance(module, nn.LSTM | nn.GRU):
            module.hidden_size, module.input_size = module.weight_hh_l0.shape[1], module.weight_ih_l0.shape[1]
        elif isinstance(module, nn.InstanceNorm1d):
            module.num_features = len(module.weight)
    return model


def _count_groups(module: Any, args: tuple[Tensor]) -> None:
    if module.groups > 1:
        wide = len(module.bias) if module.transposed else args[0].shape[1]
        module.groups = wide // module.weight.shape[1]


def masked(name: str, kept: dict[str, np.ndarray]) -> nn.Module:
    """The whole network with every slice of a removed group zero."""
    found, model = graph(name), copy.deepcopy(network(name))
    for key, tensor in model.state_dict().items():
        for dim, mask in found.masks(f"model.{key}", kept).items():
            tensor[(slice(None),) * dim + (torch.from_numpy(~mask),)] = 0
    return model


def choose(name: str, seed: int) -> dict[str, np.ndarray]:
    """Some groups of some families of channels; at least one group stays."""
    rng, kept = np.random.default_rng(seed), {}
    for family in free(name):
        if family.kind != "layers" and not family.averaged and rng.random() < 0.7:
            kept[family.name] = rng.permutation(family.size) < rng.integers(1, family.size + 1)
    return kept


@pytest.mark.parametrize("name", NETWORKS)
def test_families_that_may_lose_groups(name):
    found: dict[str, list[int]] = {}
    for family in free(name):
        found.setdefault(family.kind, []).append(family.size)
    assert {kind: sorted(sizes) for kind, sizes in found.items()} == NETWORKS[name][2]
    assert not graph(name).notes


@pytest.mark.parametrize("name", NETWORKS)
def test_without_the_groups_it_computes_the_whole_with_their_slices_zero(name):
    x = inputs(name)

    @given(st.integers(0, 2**20))
    @settings(max_examples=5, deadline=None, database=None)
    def check(seed: int) -> None:
        kept = choose(name, seed)
        with torch.no_grad():
            expected, found = masked(name, kept)(x), small(name, kept)(x)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

    check()


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "recurrent"])
def test_work_is_what_torch_counts_before_and_after(name):
    for kept in ({}, choose(name, 5)):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            small(name, kept)(inputs(name, 1))
        assert graph(name).flops(kept) == counter.get_total_flops()


def test_each_stage_has_a_residual_stream_and_layers_of_its_own():
    found = graph("stages")
    hidden = {family.name: family.size for family in free("stages") if family.kind == "hidden"}
    assert hidden == {"model.stages.0.hidden": 6, "model.stages.1.hidden": 8}
    layers = {family.name: family.blocks for family in free("stages") if family.kind == "layers"}
    assert layers == {
        "model.stages.0.layers": tuple(f"model.stages.0.{i}" for i in range(3)),
        "model.stages.1.layers": ("model.stages.1.1", "model.stages.1.2"),
    }
    assert len(found.blocks) == 6  # the one that changes the width is a block too
