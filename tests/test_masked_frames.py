"""A vector that the forward does not read, such as what stands for masked frames, pins what is as wide and no more."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compress.graph.example import Example
from compress.graph.trace import trace


class Hears(nn.Module):
    """A stem of twelve channels in front of a stream of eight."""

    def __init__(self, masked: int) -> None:
        super().__init__()
        self.inside, self.stem, self.head = nn.Linear(5, 12), nn.Linear(12, 8), nn.Linear(8, 24)
        self.masked = nn.Parameter(torch.ones(masked))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(torch.relu(self.stem(torch.relu(self.inside(x)))))}


@pytest.mark.parametrize(("masked", "pinned"), [(7, set()), (8, {8}), (12, {12}), (24, set())])
def test_a_vector_that_is_not_read_pins_what_is_as_wide(masked, pinned):
    model = Hears(masked).eval().to("meta")
    found = trace(model, Example({"x": torch.empty(2, 5, device="meta")}))
    channels = {family.size: family.pinned for family in found.families.values() if family.kind == "channels"}
    assert channels.keys() == {8, 12}
    reason = "it may span masked, which the trace did not run"
    assert {size for size, why in channels.items() if why == reason} == pinned
    assert all(why in (None, reason) for why in channels.values())
