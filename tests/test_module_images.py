"""compress.prune on networks of convolutions, against the dense ones with their removed channels zeroed by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import recipe
from torch import nn

import compress

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Inverted(nn.Module):
    """Depth-wise between two point-wise convolutions, around which the input goes."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up, self.down = nn.Conv2d(width, inner, 1, bias=False), nn.Conv2d(inner, width, 1)
        self.deep = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
        self.first, self.second = nn.BatchNorm2d(inner), nn.BatchNorm2d(inner)

    def forward(self, x):
        return x + self.down(self.second(self.deep(self.first(self.up(x)).relu())).relu())


class Net(nn.Module):
    """A stem whose channels are grouped and normalised in groups, an inverted block, pixels laid side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.GroupNorm(4, 16)
        self.groups, self.mix = nn.Conv2d(16, 16, 3, padding=1, groups=4), nn.Conv2d(16, 12, 1)
        self.block, self.pool = Inverted(12, 20), nn.AdaptiveAvgPool2d(2)
        self.flat, self.head = nn.Linear(12 * 4, 10), nn.Linear(10, 5)

    def forward(self, x):
        x = self.mix(self.groups(self.norm(self.stem(x)).relu()).relu())
        x = self.pool(self.block(x)).flatten(1)
        return self.head(self.flat(x).relu())


def net() -> Net:
    """One whose batch norms have seen something."""
    made = Net().eval()
    for norm in (made.block.first, made.block.second):
        nn.init.uniform_(norm.running_mean, -0.5, 0.5)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
    return made


@given(st.integers(0, 2**20))
@settings(max_examples=2, deadline=None)
def test_a_network_without_channels_computes_the_dense_one_with_them_zero(seed):
    dense = net()
    steps = recipe("{prune: channels, by: random, remove: 40%}").model_copy(update={"seed": seed})
    found = compress.prune(dense, X, steps)
    small, other = found.module, copy.deepcopy(dense)
    decided = found.plan.steps[0].decision["kept"]
    groups, filters, inner, flat = (
        set(decided.get(name, range(size)))
        for name, size in (("channels", 4), ("channels.3", 4), ("block.channels", 20), ("channels.4", 10))
    )
    with torch.no_grad():
        gone = [c for c in range(16) if not (c // 4 in groups and c % 4 in filters)]  # 4 groups of 4 filters
        other.mix.weight[:, gone] = 0
        other.block.down.weight[:, [c for c in range(20) if c not in inner]] = 0
        other.head.weight[:, [c for c in range(10) if c not in flat]] = 0
        wanted = other(X)
        assert (small(X) - wanted).abs().max() < 1e-5 * wanted.abs().max()
        assert (dense(X) - wanted).abs().max() > 1e-3 * wanted.abs().max()
    assert small.block.deep.groups == small.block.deep.in_channels == small.block.first.num_features == len(inner) < 20
    assert (small.norm.num_groups, small.groups.groups) == (len(groups), len(groups))
    assert (small.stem.out_channels, small.mix.in_channels) == (4 * len(groups), len(groups) * len(filters))


def test_residual_channels_and_batch_norms_taken_anew():
    data = [torch.randn(8, 3, 8, 8) for _ in range(2)]
    steps = recipe("{prune: channels, by: fluctuation, remove: 30%, repair: least_squares}", "{reestimate: batch_norm}")
    dense = net()
    small = compress.prune(dense, X, steps, data=data).module
    with torch.no_grad():
        x = small.mix(small.groups(small.norm(small.stem(torch.cat(data))).relu()).relu())
        mean = small.block.up(x).mean((0, 2, 3))
    assert (small.block.first.running_mean - mean).abs().max() < 0.05 * mean.abs().max()
    assert len(mean) < 20 and not small.block.first.training


@pytest.mark.slow
def test_a_pruned_network_goes_to_onnx(tmp_path):
    import onnxruntime

    small = compress.prune(net(), X, recipe("{prune: channels, by: magnitude, remove: 30%}")).module
    torch.onnx.export(small, (X,), tmp_path / "net.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: X.numpy()})
    assert torch.from_numpy(found).allclose(small(X), atol=1e-5)
