"""Numbers of modules that must follow what was cut: found by trying, and one that cannot follow is not among them."""

import copy

import torch
from torch import Tensor, nn

from compress.model.modeling_compress import reshape
from compress.output_format.attributes import Rule, expand
from compress.output_format.probe import shapes_of
from compress.output_format.search import find_rules


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


class Fused(nn.Module):
    """Takes the width of its heads from that of what it is given, as do MGP-STR, TimeSformer and BLIP."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = 4, nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        q, k, v = self.qkv(x).reshape(rows, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).reshape(rows, length, width))


class Attending(nn.Module):
    base_model_prefix = "model"

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(24, 16)
        self.layers = nn.ModuleList([Fused(), Fused()])

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embed(input_ids)
        for layer in self.layers:
            x = x + layer(x)
        return x


def test_views_follow_their_inputs_where_the_code_has_a_width_from_elsewhere():
    torch.manual_seed(0)
    dense, cut = Attending().eval(), Attending().eval()
    kept = torch.tensor([0, 1, 2, 3, 12, 13, 14, 15])  # heads 0 and 3 of four
    rows = torch.cat([kept, kept + 16, kept + 32])
    shapes = {}
    for i in (0, 1):
        shapes |= {f"layers.{i}.qkv.weight": (24, 16), f"layers.{i}.qkv.bias": (24,), f"layers.{i}.out.weight": (16, 8)}
    state = dense.state_dict()
    for name in shapes:
        state[name] = state[name].index_select(1, kept) if "out" in name else state[name].index_select(0, rows)
    meta, reshaped = Attending().eval().to("meta"), Attending().eval().to("meta")
    reshape(reshaped, shapes=shapes, biases={}, attributes={})
    rules = find_rules(meta, reshaped, None, {"layers.0.out.weight": (16, (2, 4))})
    attributes = expand(rules, meta, shapes_of(meta), shapes_of(reshaped))
    reshape(cut, shapes=shapes, biases={}, attributes=attributes)
    cut.load_state_dict(state)
    with torch.no_grad():
        for layer in dense.layers:
            layer.out.weight[:, 4:12] = 0
        ids = torch.arange(10).view(2, 5)
        torch.testing.assert_close(cut(ids), dense(ids), atol=1e-6, rtol=0)
        torch.testing.assert_close(copy.deepcopy(cut)(ids), dense(ids), atol=1e-6, rtol=0)
    assert attributes["layers.0"]["view.3"] == 2


class Scaled(Block):
    """Runs with heads of any width, as what is left for it is; but each is divided by a length of its own."""

    def forward(self, x: Tensor) -> Tensor:
        states = self.up(x).unflatten(-1, (self.heads, -1))
        return self.down((states / states.square().mean(-1, keepdim=True)).flatten(-2))


class Branching(Block):
    """Looks at the number of its heads where a value of its input says so."""

    def forward(self, x: Tensor) -> Tensor:
        states = self.up(x).unflatten(-1, (-1, 4))
        return self.down((states + torch.zeros(self.heads, 4) if x.sum() > 0 else states).flatten(-2))


def pair(kind: type[Block]) -> list[Model]:
    models = [Model(16), Model(8)]
    for model, width in zip(models, (16, 8), strict=True):
        for i in (0, 1):
            model.layers[i] = kind(4, 1)
            model.layers[i].up, model.layers[i].down = nn.Linear(8, width), nn.Linear(width, 8)
    return [model.eval().to("meta") for model in models]


def test_a_model_that_runs_with_heads_of_another_width_is_not_right_yet():
    models, heads = pair(Scaled), (Rule("layers.*", "heads", "up.weight", 0),)
    assert find_rules(*models, None) == ()
    assert find_rules(*models, None, {"layers.0.up.weight": ((2, 4), 8)}) == heads


def test_numbers_count_that_are_read_in_either_branch():
    assert find_rules(*pair(Branching), None) == (Rule("layers.*", "heads", "up.weight", 0),)
