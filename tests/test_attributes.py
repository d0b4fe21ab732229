"""Numbers of modules that must follow what was cut: found by trying, and one that cannot follow is not among them."""

from torch import Tensor, nn

from compress.output_format.attributes import Rule, find_rules


class Block(nn.Module):
    """Reads a stride, which has nothing to do with its heads, before their number."""

    def __init__(self, heads: int, stride: int) -> None:
        super().__init__()
        self.heads, self.stride = heads, stride
        self.up, self.down = nn.Linear(8, heads * 4), nn.Linear(heads * 4, 8)

    def forward(self, x: Tensor) -> Tensor:
        states = self.up(x[:, :: self.stride]).unflatten(-1, (self.heads, 4))
        return self.down(states.flatten(-2))


class Model(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(24, 8)
        self.layers = nn.ModuleList([Block(4, 2), Block(4, 3)])
        for layer in self.layers:
            layer.up, layer.down = nn.Linear(8, width), nn.Linear(width, 8)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embed(input_ids)
        for layer in self.layers:
            x = layer(x)
        return x


def test_a_number_that_some_module_cannot_follow_is_passed_over():
    found = find_rules(Model(16).eval().to("meta"), Model(8).eval().to("meta"), None)
    assert found == (Rule("layers.*", "heads", "up.weight", 0),)


class Plain(Block):
    """Works out its number of heads by itself."""

    def __init__(self) -> None:
        super().__init__(4, 1)
        del self.heads

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up(x).unflatten(-1, (-1, 4)).flatten(-2))


def test_a_module_without_the_number_is_passed_over_too():
    models = [Model(16), Model(8)]
    for model, width in zip(models, (16, 8), strict=True):
        model.layers.append(plain := Plain())
        plain.up, plain.down = nn.Linear(8, width), nn.Linear(width, 8)
    found = find_rules(*(model.eval().to("meta") for model in models), None)
    assert found == (Rule("layers.*", "heads", "up.weight", 0),)
