"""What a trace knows of values: all that follows from the code, and nothing of what hangs on weights or inputs."""

import pytest
import torch
from torch import nn

from compress.graph.numbers import set_numbers
from compress.graph.record import WrittenNumbers
from compress.graph.values import Unread


def forward(function, *shapes):
    """`function` of such tensors on the meta device; (result, where a value was guessed, where a mask was)."""
    given = [torch.empty(shape, device="meta") for shape in shapes]
    mode = Unread()
    with torch.no_grad(), torch.device("meta"), WrittenNumbers(mode.values), mode:
        return function(*given), mode.branches, mode.masks


def written(x):
    """Sizes of an image, one by one, as DETRs note them."""
    sizes = torch.empty((2, 2), dtype=torch.long)
    for place in range(2):
        sizes[place, 0], sizes[place, 1] = x.shape
    return sizes.prod(1).sum().item()


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (lambda x: torch.arange(5).max().item(), 4),
        (lambda x: (torch.ones(4, 4).tril() == 0).sum().item(), 6),
        (lambda x: torch.tensor([3, 7])[1].item(), 7),
        (lambda x: torch.div(x.size(0), 2, rounding_mode="trunc").item(), 4),
        (lambda x: torch.tensor([1.0, 2.0]).tolist(), [1.0, 2.0]),
        (lambda x: len(torch.tensor([True, False, True]).nonzero()), 2),
        (lambda x: f"expert_{torch.arange(3)[2]}", "expert_2"),
        (lambda x: bool((x.new_zeros(3) == 0).all()), True),
        (lambda x: torch.arange(4).masked_fill_(torch.arange(4) > 1, 9).sum().item(), 19),
        (written, 32),
        (lambda x: torch.arange(6)[torch.arange(6) % 2 == 0].tolist(), [0, 2, 4]),
        (lambda x: torch.arange(6).view(2, 3)[:, [0, 2, 1]].tolist(), [[0, 2, 1], [3, 5, 4]]),
    ],
)
def test_what_follows_from_the_code_is_known(function, wanted):
    found, branches, masks = forward(function, (8, 2))
    assert found == wanted
    assert not branches and not masks


def overwritten(x):
    """Half of it comes from the input, by way of another view."""
    whole = torch.zeros(4)
    whole.view(2, 2)[1].copy_(x[0])
    return whole.sum().item()


@pytest.mark.parametrize(
    "function",
    [lambda x: x.sum().item(), lambda x: torch.rand(2).sum().item(), overwritten, lambda x: torch.empty(2)[0].item()],
    ids=["input", "random", "overwritten", "unset"],
)
def test_what_does_not_is_guessed_and_its_place_noted(function):
    found, branches, _ = forward(function, (8, 2))
    assert found == 0
    (place,) = branches
    assert place.startswith("test_values.py:")


def test_of_a_mask_that_is_not_known_every_entry_counts_as_true():
    found, branches, masks = forward(lambda x: (x > 0).nonzero().tolist(), (2, 2))
    assert found == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert not branches and len(masks) == 1
    found, branches, masks = forward(lambda x: x[x > 0].shape, (2, 3))
    assert found == (6,) and not branches and len(masks) == 1


@pytest.mark.parametrize(("answer", "times"), [(0, 1), (1, 2)])
def test_repeats_that_are_not_known_are_all_alike(answer, times):
    states, weight = torch.empty(3, 4, device="meta"), torch.empty(3, dtype=torch.long, device="meta")
    count = torch.tensor([2, 0, 3])
    with torch.device("meta"), Unread(answer) as mode:
        guessed = states.repeat_interleave(weight, dim=0)
        known = states.repeat_interleave(mode.values.lend({"": count})[""], dim=0)
    assert (guessed.shape, known.shape) == ((3 * times, 4), (5, 4))
    assert len(mode.branches) == 1 and "test_values.py" in next(iter(mode.branches))


def test_constants_on_the_processor_meet_the_rest():
    held = torch.arange(3.0)
    found, *_ = forward(lambda x: x + held, (2, 3))
    assert found.is_meta and found.shape == (2, 3)


class Mixture(nn.Module):
    """Of four experts each token visits the best, which python looks for one by one."""

    def __init__(self):
        super().__init__()
        self.router = nn.Linear(8, 4, bias=False)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 8)) for _ in range(4))

    def forward(self, x):
        mask = nn.functional.one_hot(self.router(x).argmax(-1), 4).T
        result = torch.zeros_like(x)
        for expert in (mask.sum(-1) > 0).nonzero():
            (tokens,) = torch.where(mask[expert[0]] > 0)
            result[tokens] += self.experts[int(expert)](x[tokens])
        return result


def test_experts_that_python_looks_up_all_run_and_their_channels_are_free():
    from compress.graph.example import Example
    from compress.graph.trace import trace

    with torch.device("meta"):
        model = Mixture().eval()
    graph = trace(model, Example({"x": torch.empty(5, 8, device="meta")}))
    assert not graph.untraced
    assert len(graph.of_kind("channels")) == 4
    assert any("every entry of a mask" in note for note in graph.notes)


def test_parts_whose_sizes_hang_on_the_input_are_equally_long():
    found, branches, _ = forward(lambda x: x.split(x[:3, 0].long().tolist()), (8, 2))
    assert [len(part) for part in found] == [3, 3, 2] and branches
    with pytest.raises(RuntimeError, match="split_with_sizes"):
        forward(lambda x: x.split([1, 2]), (8, 2))


class Strided(nn.Module):
    """Pads by numbers that it keeps as tensors, as codecs of sound do."""

    def __init__(self):
        super().__init__()
        for name, made in {"stride": torch.tensor(4), "unset": torch.tensor(1), "scale": torch.tensor(0.5)}.items():
            self.register_buffer(name, made, persistent=False)
        self.register_buffer("steps", torch.tensor(7))

    def forward(self, x):
        return nn.functional.pad(x, (0, -x.shape[-1] % self.stride))

    def _init_weights(self, module):
        module.stride.fill_(4)


def test_whole_numbers_that_modules_keep_and_no_file_are_real_on_meta():
    with torch.device("meta"):
        model = Strided()
    set_numbers(model)
    assert model.stride.item() == 4
    assert model.unset.is_meta and model.scale.is_meta and model.steps.is_meta
    found, branches, _ = forward(model, (2, 13))
    assert found.shape == (2, 16) and not branches
