"""Networks of convolutions: what may go of them, and that what is left computes the whole with those channels zero."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from convolutional import NETWORKS
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from compress.graph.example import Example
from compress.graph.families import Graph
from compress.graph.trace import trace
from compress.surgery.take import take

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


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
        else:
            _agree(module)
    return model


def _agree(module: Any) -> None:
    """What modules note about their sizes."""
    if isinstance(module, nn.GroupNorm):
        module.num_groups = module.num_groups * len(module.weight) // module.num_channels
        module.num_channels = len(module.weight)
    elif isinstance(module, nn.LSTM | nn.GRU):
        inner, wide = module.weight_hh_l0.shape[1], module.weight_ih_l0.shape[1]  # pyright: ignore
        module.hidden_size, module.input_size = inner, wide  # pyright: ignore
    elif isinstance(module, nn.InstanceNorm1d):
        module.num_features = len(module.weight)


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


class Merged(nn.Module):
    """Patches of an odd number of columns, padded, four of them merged into one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.reduce = nn.Conv2d(3, 6, 1), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.pad(self.stem(x).permute(0, 2, 3, 1), (0, 0, 0, 1))
        return self.reduce(torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1))


def test_patches_of_an_odd_grid_leave_the_channels_free():
    model = Merged().to("meta")
    found = trace(model, Example({"x": torch.empty(2, 3, 8, 7, device="meta")}, {"batch": ("x", 0)}))
    assert [(family.kind, family.size) for family in found.families.values() if family.pinned is None] == [
        ("channels", 6)
    ]
    assert not found.notes
    kept = np.array([True, False, True, True, False, True])
    assert found.masks("reduce.weight", {"channels": kept})[1].tolist() == kept.tolist() * 4


class Standardised(nn.Conv2d):
    """Its weight has mean 0 and variance 1 over what it reads."""

    def forward(self, x: Tensor) -> Tensor:
        flat = self.weight.reshape(1, self.out_channels, -1)
        weight = nn.functional.batch_norm(flat, None, None, training=True).reshape_as(self.weight)
        return nn.functional.conv2d(x, weight, self.bias)


def test_what_a_standardised_weight_reads_stays():
    model = nn.Sequential(nn.Conv2d(3, 6, 1), Standardised(6, 8, 3), nn.Conv2d(8, 5, 1)).to("meta")
    found = trace(Named(model), Example({"x": torch.empty(2, 3, 8, 8, device="meta")}, {"batch": ("x", 0)}))
    (read,) = (f for f in found.families.values() if ("model.1.weight", 1) in [(m.tensor, m.dim) for m in f.members])
    assert read.size == 6 and read.pinned == "a normalisation averages over it"


class Snaking(nn.Module):
    """As the residual units of DAC: x + conv(snake(conv(x))), snake(x) = x + sin² x."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(6, 8, 3, padding=1), nn.Conv1d(8, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.first(x)
        return x + self.second(inner + inner.sin().square())


def test_a_stream_plus_what_became_of_it_is_no_shortcut():
    units = nn.Sequential(nn.Conv1d(2, 6, 1), Snaking(), Snaking(), nn.Conv1d(6, 2, 1))
    found = trace(Named(units).to("meta"), Example({"x": torch.empty(2, 2, 20, device="meta")}, {"batch": ("x", 0)}))
    inner = [family for family in found.families.values() if family.size == 8]
    assert [(family.kind, family.pinned) for family in inner] == [("channels", None)] * 2
