"""`by: obs` in recipes: what it refuses, what it is calibrated on, block after block, and an input of huge size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import zoo

from compress.errors import InputError
from compress.execution.baseline import Original
from compress.execution.context import Context
from compress.graph.families import Family, Graph, Member
from compress.graph.layout import Axis, unit_index
from compress.model.model import Model
from compress.recipe.prune import Prune
from compress.recipe.read import parse_recipe
from compress.registry import criteria, repairs
from compress.score.elimination import Consumer, Per, eliminate
from compress.score.score import needed
from compress.steps.units.decide import families_of
from compress.steps.units.in_sequence import in_sequence

OUT, IN, TOKENS = 5, 12, 200
EACH = torch.arange(IN)  # a group per input
W = torch.randn(OUT, IN, generator=torch.Generator().manual_seed(0))


def chosen(gram, count, weight=W, units=EACH, per: Per = "input"):
    """The first groups to leave."""
    size = int(units.max()) + 1
    return eliminate([Consumer("down", weight, gram, units, size, 0.01, per)], size, 16, stop=count)[0]


def test_channels_of_stacked_experts_are_refused_before_anything_is_calibrated():
    dims = (Axis("experts", 2), Axis("hidden", 3), Axis("inner", 4))
    member = Member("moe.experts.down_proj", 2, "in", dims[2])
    inner = Family("inner", "channels", 4, (member,), layer=0)
    graph = Graph({member.tensor: dims}, {"experts": Family("experts", "experts", 2), "inner": inner}, (), ())
    with pytest.raises(
        InputError, match=r"obs cannot score inner.*stacked in moe\.experts\.down_proj are not repaired"
    ):
        needed(graph, [inner], criteria.get("obs"))
    assert needed(graph, [inner], criteria.get("wanda")) == {"input_norm": {member.tensor}}


def test_the_nearer_calibration_is_to_what_comes_the_less_is_lost():
    own = torch.Generator().manual_seed(2)
    mixing, strength = torch.randn(4, IN, generator=own), torch.tensor([3.0, 1, 0.3, 0.1])

    def inputs(scale):
        """Few sources in many channels, as a model's are; another text has them in another strength."""
        hidden = torch.randn(TOKENS, 4, generator=own) * scale
        return hidden @ mixing + 0.1 * torch.randn(TOKENS, IN, generator=own)

    def lost(x):
        """What half of the channels cost on new inputs, chosen and repaired on x."""
        gram, new = x.T @ x / len(x), inputs(strength)
        kept = ~torch.isin(EACH, chosen(gram, IN // 2))
        weight, _ = repairs.get("least_squares").target(W, None, kept, gram, x.mean(0), per="input")
        return float((new @ (W - weight).T).square().mean())

    same, other, noise = (
        lost(inputs(strength)),
        lost(inputs(strength.flip(0))),
        lost(torch.randn(TOKENS, IN, generator=own)),
    )
    assert same < other < noise


@pytest.mark.parametrize("kinds", ["channels", "heads"])
def test_block_after_block_each_is_chosen_on_what_the_repaired_ones_give(kinds, tmp_path):
    """The data-free mode: random tokens, no text and no tokenizer."""
    source = Model.of(zoo.save("llama", tmp_path / "in"))
    given = parse_recipe(
        "calibrate: {data: random, samples: 6, length: 12}\nsteps: [{prune: "
        f"{kinds}, by: obs, remove: 50%, repair: least_squares, propagate: pruned}}]"
    )
    (step,) = given.steps
    assert isinstance(step, Prune)
    families = families_of(source.graph, step)
    (kept, _, _), stats = in_sequence(Context(source, source, Original(source.graph), given, "cpu"), step, families)
    for family in families:
        member = next(member for member in family.members if member.role == "in")
        weight, gram = source.weights.read(member.tensor), stats["input_gram"][member.tensor]
        units = torch.from_numpy(unit_index(member.layout, family.name))
        gone = chosen(gram, family.size // 2, weight, units)
        assert set(gone.tolist()) == set(np.flatnonzero(~kept[family.name]).tolist())


def test_one_input_of_huge_size_leaves_the_others_their_order_and_their_repair():
    own = torch.Generator().manual_seed(3)
    x = torch.randn(TOKENS, IN, generator=own) @ torch.randn(IN, IN, generator=own)
    huge, rest = x.clone(), x.clone()
    huge[0, 5] = 1e5  # on one token, as the activations that attention rests on
    rest[0] = rest[:, 5] = 0  # that token is the input's, and makes up for nothing else
    gram, usual = (one.T @ one / TOKENS for one in (huge, rest))
    assert chosen(gram, 6).tolist() == chosen(usual, 7).tolist()[1:]
    others = (W.square().sum(0) + (EACH == 5) * 1e9).argsort()[:6]
    assert chosen(gram, 6, per="matrix").tolist() == others.tolist(), "a ranking by weights"
    kept = ~torch.isin(EACH, chosen(gram, 6))
    for name, more in (("least_squares", (x.mean(0),)), ("obs", ())):
        repair = repairs.get(name).target
        moved = {per: repair(W, None, kept, gram, *more, per=per)[0] - W * kept for per in ("input", "matrix")}
        assert moved["matrix"].abs().max() < 1e-3 < 0.1 < moved["input"].abs().max()
