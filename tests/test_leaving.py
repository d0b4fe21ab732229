"""What never leaves a module: it is free even where another one did not run, which may take widths from the rest."""

from torch import Tensor, nn, relu

from compress.graph.trace import trace
from compress.inputs.choose import inputs_of


class Side(nn.Module):
    """Shows its caller its inner states, or not."""

    def __init__(self, shown: bool) -> None:
        super().__init__()
        self.up, self.down, self.shown = nn.Linear(8, 20), nn.Linear(20, 8), shown

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        inner = relu(self.up(x))
        result = x + self.down(inner)
        return (result, inner) if self.shown else (result,)


class Model(nn.Module):
    """A block outside of lists, and a projector that its forward does not use."""

    def __init__(self, shown: bool) -> None:
        super().__init__()
        self.embed, self.side, self.head = nn.Embedding(24, 8), Side(shown), nn.Linear(8, 24)
        self.unused = nn.Linear(20, 8)

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(self.side(self.embed(input_ids))[0])}


def free(shown: bool) -> set[str]:
    model = Model(shown).eval().to("meta")
    found = trace(model, inputs_of(model).example())
    return {family.name for family in found.families.values() if family.pinned is None}


def test_what_never_leaves_a_module_that_ran_whole_is_free():
    assert free(shown=False) == {"side.channels"}


def test_what_leaves_it_is_not():
    assert free(shown=True) == set()
