"""Views whose code takes a width from elsewhere: they follow what is left of their inputs, or are refused."""

from __future__ import annotations

import copy

import nets
import pytest
import torch
from nets import recipe
from torch import nn
from torch.nn import functional

import compress
from compress.model.views import follow

HEADS = recipe("{prune: heads, by: magnitude, remove: 50%}")


def apart(one, other):
    assert one.shape == other.shape
    return ((one - other).abs().max() / other.abs().max()).item()


@pytest.mark.parametrize("written", [False, True])
def test_views_follow_their_inputs_where_their_code_has_other_sizes(written, tmp_path):
    class Written(nets.Plain):
        def forward(self, x):
            rows, length, _ = x.shape
            q, k, v = self.qkv(x).view(rows, length, 3, 4, 4).permute(2, 0, 3, 1, 4)
            y = functional.scaled_dot_product_attention(q, k, v)
            return self.o(y.transpose(1, 2).reshape(rows, length, 16))

    def build():
        return nn.Sequential(nn.Linear(6, 16), (Written if written else nets.Plain)(), nn.Linear(16, 3))

    dense, x = build(), torch.randn(2, 5, 6)
    found = compress.prune(dense, x, recipe("{prune: heads, by: random, remove: 50%}"))
    heads = [i for i in range(4) if i not in found.plan.steps[0].decision["kept"]["1.heads"]]
    small = found.module.eval()
    dense[1].o.weight.data[:, [column for column in range(16) if column // 4 in heads]] = 0
    with torch.no_grad():
        assert apart(small(x), dense.eval()(x)) < 1e-5
    assert type(small[1]) is type(dense[1]) and small[1].qkv.out_features == 24
    assert torch.equal(copy.deepcopy(small)(x), small(x))
    found.save(tmp_path / "out")
    again = compress.load(tmp_path / "out", build=build)
    assert torch.equal(again(x), small(x))
    if not written:
        assert torch.export.export(again, (x,)).module()(x).allclose(small(x))
    assert compress.prune(again, x, HEADS).module[1].qkv.out_features == 12


class Stack(nn.Module):
    def __init__(self):
        super().__init__()
        self.start = nn.Linear(6, 16)
        self.blocks = nn.ModuleList(nets.Plain() for _ in range(2))

    def forward(self, x):
        x = self.start(x)
        for block in self.blocks:
            x = x + block(x)
        return x[:, 0]


def test_blocks_whose_views_follow_are_calibrated_in_the_next_round():
    data = [torch.randn(4, 5, 6) for _ in range(2)]
    steps = recipe("{prune: heads, by: fluctuation, remove: 75%, repair: least_squares}")
    found = compress.prune(Stack(), data[0], steps, data=data, rounds=2)
    assert [block.heads for block in found.module.blocks] == [1, 1]
    assert [change.views for change in found.changes] == [{"blocks.0": {"1": 2}, "blocks.1": {"1": 2}}, {}]


def test_a_size_that_is_asked_for_in_any_form_follows():
    class Forms(nn.Module):
        def forward(self, x, rows):
            return x.view(rows, 9).sum(1), x.reshape((rows, 9)), torch.reshape(x, (rows, 9)), x.view(torch.int32)

    module = Forms()
    follow(module, {0: 1, 2: 1}, {})
    follow(module, {1: 1}, {})
    given, second, third, last = module(torch.ones(2, 3), rows=2)
    assert given.tolist() == [3, 3] and second.shape == third.shape == (2, 3) and last.dtype == torch.int32
