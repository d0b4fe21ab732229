"""Operators that give their operand another shape in place: its dimensions stay the same axes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import compress
import compress.graph.rules  # registers them
from compress.graph.axes import find
from compress.graph.record import Recorder


@pytest.mark.parametrize(
    ("shape", "change", "places"),
    [
        ((1, 3), lambda x: x.squeeze_(0), [1]),
        ((1, 3, 1), lambda x: x.squeeze_(), [1]),
        ((1, 3), lambda x: x.squeeze_(1), [0, 1]),
        ((2, 3), lambda x: x.unsqueeze_(-1), [0, 1, None]),
        ((2, 3), lambda x: x.unsqueeze_(0), [None, 0, 1]),
        ((2, 3, 4), lambda x: x.transpose_(0, -1), [2, 1, 0]),
        ((2, 3), lambda x: x.t_(), [1, 0]),
    ],
)
def test_dimensions_move_as_they_do(shape, change, places):
    weight = torch.empty(shape, device="meta")
    recorder = Recorder({"weight": weight}, {}, {})
    before = [find(node) for node in recorder.dims(weight)]
    with recorder:
        change(weight)
    after = [find(node) for node in recorder.dims(weight)]
    assert [node.size for node in after] == list(weight.shape)
    wanted = [None if place is None else before[place] for place in places]
    assert all(found is node for found, node in zip(after, wanted, strict=True) if node is not None)
    assert recorder.origins[id(weight)] == ("weight", tuple(places))


class Start(nn.Module):
    """A stored vector is projected as it is, which squeezes the product in place."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.randn(6))
        self.up, self.down = nn.Linear(6, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.up(x) + self.up(self.start)))


def test_a_vector_that_is_projected_loses_the_channels_of_what_it_is_added_to():
    torch.manual_seed(0)
    recipe = [{"prune": "channels", "by": "magnitude", "remove": "50%"}]
    found = compress.prune(Start(), torch.randn(2, 6), recipe)  # which compares with the masked module
    assert found.module.up.weight.shape == (6, 6) and found.module.down.weight.shape == (4, 6)  # pyright: ignore
