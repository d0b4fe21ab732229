"""What is read off a recorded forward: families, their reasons, work, and what happens to what is not understood."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from sliced import VARIANTS, architecture, graph, word
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from compress.errors import ModelError
from compress.graph.families import Family, Graph
from compress.graph.layout import Axis, Product
from compress.graph.layout import families as names
from compress.graph.record import Recorder
from compress.graph.trace import trace
from compress.inputs.choose import inputs_of
from compress.model.build import empty_model

POSITIONS = "its rows are looked up by numbers that the model computes"
ROTARY = "is indexed by it"
# (families with this last word, their size, a part of the reason why they are pinned), in two layers unless said.
Rows = dict[str, tuple[int, int, str | None]]
COMMON: Rows = {"vocab": (1, 96, None), "hidden": (1, 32, None), "layers": (1, 2, None)}
CORE: Rows = {**COMMON, "heads": (2, 2, None), "queries": (2, 2, None), "channels": (2, 48, None)}
LLAMA: Rows = {**CORE, "v_dim": (2, 8, None), "qk_dim": (1, 4, ROTARY)}
PLAIN: Rows = {**COMMON, "heads": (2, 4, None), "channels": (2, 48, None)}
FALCON: Rows = {**PLAIN, "channels": (2, 128, None), "head_dim": (1, 4, ROTARY)}
TWO_WIDTHS: Rows = {**PLAIN, "qk_dim": (2, 8, None), "v_dim": (2, 8, None)}
EXPECTED: dict[str, Rows] = {
    **{name: LLAMA for name in ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3")},
    "gpt2": {**TWO_WIDTHS, "channels": (2, 128, None), "other": (1, 64, POSITIONS)},
    "opt": {**TWO_WIDTHS, "other": (1, 66, POSITIONS)},
    "gpt_neox": {**TWO_WIDTHS, "qk_dim": (2, 6, None)},
    "falcon": FALCON,
    "falcon_multi_head": {**FALCON, "other": (2, 3, "picked by number")},
    "falcon_grouped": {**FALCON, "heads": (2, 2, None), "queries": (2, 2, None)},
    "bert": {**TWO_WIDTHS, "other": (2, 0, POSITIONS)},
    "bert_encoder": {**TWO_WIDTHS, "other": (3, 0, ""), "hidden": (1, 32, "width of the model's output")},
    "roberta": {**TWO_WIDTHS, "other": (2, 0, POSITIONS)},
    "distilbert": {**TWO_WIDTHS, "other": (1, 512, POSITIONS)},
    "electra": {**TWO_WIDTHS, "other": (2, 0, POSITIONS), "channels": (3, 0, "")},
    "albert": {
        **COMMON,
        "layers": (1, 1, "share their weights"),
        **{key: (1, size, None) for key, size in (("heads", 4), ("qk_dim", 8), ("v_dim", 8))},
        "channels": (2, 0, ""),
        "other": (2, 0, POSITIONS),
    },
    "t5": {
        **COMMON,
        "layers": (2, 2, None),
        "heads": (3, 4, None),  # one table of positions a stack; the cross-attentions get one mask
        "qk_dim": (9, 8, None),
        "v_dim": (9, 8, None),
        "channels": (6, 48, None),
        "other": (2, 32, POSITIONS),
    },
}


def families(name: str, last: str) -> list[Family]:
    return [family for family in graph(name).families.values() if word(family.name) == last]


def llama(layers: int = 2, **changes: Any) -> tuple[Any, Graph]:
    base = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 48, "num_attention_heads": 4}
    config = tf.LlamaConfig(**{**base, "num_key_value_heads": 2, "num_hidden_layers": layers, **changes})
    model = empty_model(config, tf.LlamaForCausalLM)
    return config, trace(model, inputs_of(model).example())


@pytest.mark.parametrize("name", VARIANTS)
def test_families_of_the_architecture(name):
    found = graph(name)
    assert {word(key) for key in found.families} == set(EXPECTED[name])
    for last, (count, size, reason) in EXPECTED[name].items():
        own = families(name, last)
        assert len(own) == count, last
        assert not size or {family.size for family in own} == {size}, last
        if reason != "":
            assert all((family.pinned is None) == (reason is None) for family in own), own
            assert all((reason or "") in (family.pinned or "") for family in own), own
    assert not found.notes or name == "gpt2"  # which branches on a padding token


@pytest.mark.parametrize("name", VARIANTS)
def test_members_lie_where_the_layouts_say(name):
    model = empty_model(architecture(name)[1], architecture(name)[0])
    state, found = model.state_dict(), graph(name)
    assert found.layouts.keys() | found.shared.keys() == state.keys()
    for family in found.families.values():
        assert family.kind == "layers" or family.members
        for member in family.members:
            assert member.layout.size == state[member.tensor].shape[member.dim]
            assert member.layout == found.layouts[member.tensor][member.dim]
    assert found.parameters() == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", VARIANTS)
def test_free_families_of_a_block_are_produced_and_consumed(name):
    for family in graph(name).of_kind("heads", "queries", "channels"):
        assert {"in", "out"} <= {member.role for member in family.members}, family.name


def test_factors_of_a_projection_with_fewer_key_value_heads_than_queries():
    config, found = llama(use_cache=True)
    assert config.use_cache and not found.notes
    layer = "model.layers.1.self_attn"
    (query,) = (found.layouts[f"{layer}.q_proj.weight"][0],)
    assert query.size == 64 and found.layouts[f"{layer}.k_proj.weight"][0].size == 32
    assert found.layouts[f"{layer}.v_proj.weight"][0] == Product(
        (Axis(f"{layer}.heads", 2), Axis(f"{layer}.v_dim", 16))
    )
    assert [found.families[f"{layer}.{k}"].size for k in ("heads", "queries", "v_dim")] == [2, 2, 16]
    one = {f"{layer}.heads": np.array([False, True])}
    masks = {key: found.masks(f"{layer}.{key}_proj.weight", one) for key in "qkvo"}
    assert [np.flatnonzero(m).tolist() for m in masks["q"].values()] == [[*range(32, 64)]]
    assert [np.flatnonzero(m).tolist() for m in masks["k"].values()] == [[*range(16, 32)]]
    assert list(masks["o"]) == [1] and (masks["o"][1] == masks["q"][0]).all()


def test_the_cost_is_linear_in_layers(monkeypatch):
    counted = []
    bind = Recorder.__torch_dispatch__

    def count(self, *args, **kwargs):
        counted[-1] += 1
        return bind(self, *args, **kwargs)

    monkeypatch.setattr(Recorder, "__torch_dispatch__", count)
    for layers in (2, 4, 8):
        counted.append(0)
        llama(layers)
    two, four, eight = counted
    assert eight - four == 2 * (four - two) > 0
    counted.append(0)
    llama(2, hidden_size=4096, intermediate_size=11008, vocab_size=32000)
    assert counted[-1] == two


def test_tied_weights_are_stored_once():
    _, tied = llama(tie_word_embeddings=True)
    _, apart = llama(tie_word_embeddings=False)
    assert tied.shared == {"lm_head.weight": "model.embed_tokens.weight"} and not apart.shared
    assert apart.parameters() - tied.parameters() == 96 * 64
    assert [len(g.families["vocab"].members) for g in (tied, apart)] == [1, 2]
    assert tied.flops() == apart.flops()


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "bert", "falcon_grouped", "phi3", "mistral", "gemma3"])
def test_flops_are_those_that_torch_counts(name):
    """A sliding window (8 of 20 tokens here) does not shorten the products of an eager attention."""
    cls, config = architecture(name)
    model: Any = cls._from_config(config, attn_implementation="eager").eval()  # pyright: ignore
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.ones(3, 20, dtype=torch.long))
    assert graph(name).flops(batch=3, sequence=20) == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_flops_fall_with_what_is_removed():
    _, found = llama(4)
    half = {"model.layers.0.mlp.channels": np.arange(48) < 24}
    assert found.flops() - found.flops(half) == 2 * 512 * 3 * 64 * 24
    gone = {"model.layers.layers": np.arange(4) != 1}
    blocks = found.flops() - 2 * 512 * 64 * 96
    assert found.flops(gone) == found.flops() - blocks // 4
    assert found.removed_blocks(gone) == {1}


@torch.library.custom_op("compress_tests::mystery", mutates_args=())
def mystery(x: torch.Tensor) -> torch.Tensor:
    return x.flip(-1)


@mystery.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class Toy(nn.Module):
    """Two projections with something between them."""

    def __init__(self, between: Any = None) -> None:
        super().__init__()
        self.embed = nn.Embedding(24, 8)
        self.up = nn.Linear(8, 12)
        self.down = nn.Linear(12, 8)
        self.gate, self.back = nn.Linear(8, 20), nn.Linear(20, 8)
        self.head = nn.Linear(8, 24)
        self.between = between or torch.relu

    def forward(self, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.embed(input_ids)
        x = x + self.down(self.between(self.up(x)))
        x = x + self.back(torch.tanh(self.gate(x)))
        return {"logits": self.head(x)}


def toy(between: Any = None) -> Graph:
    with torch.device("meta"):
        model = Toy(between).eval()
        return trace(model, inputs_of(model).example())


def channels(found: Graph, tensor: str) -> Family:
    layout = found.layouts[tensor][0]
    assert isinstance(layout, Axis)
    return found.families[layout.family]


def test_an_unknown_operator_pins_what_it_touches_and_nothing_else():
    found = toy(mystery)
    family = channels(found, "up.weight")
    assert family.pinned is not None and "mystery" in family.pinned and "no rule" in family.pinned
    assert any("mystery" in note for note in found.notes)
    assert channels(found, "gate.weight").pinned is None and channels(found, "gate.weight").size == 20
    assert channels(toy(), "up.weight").pinned is None


def test_a_view_across_boundaries_pins_instead_of_guessing():
    found = toy(lambda x: torch.cat([x[..., :5], x[..., 5:]], -1).reshape(*x.shape[:-1], 4, 3).flatten(-2))
    parts = list(names(found.layouts["up.weight"][0]))
    assert sorted(found.families[part].size for part in parts) == [5, 7]
    assert all("no multiple" in (found.families[part].pinned or "") for part in parts)


def test_a_branch_on_a_value_is_taken_and_said():
    found = toy(lambda x: torch.relu(x) if x.sum() > 0 else torch.tanh(x))
    assert any("branch" in note for note in found.notes)
    assert channels(found, "up.weight").pinned is None


def test_a_branch_that_couples_otherwise_pins_what_it_couples():
    for one, other in ((lambda x: x, lambda x: x.flip(-1)), (lambda x: x.flip(-1), lambda x: x)):
        found = toy(lambda x, one=one, other=other: one(x) if x.sum() > 0 else other(x))
        assert channels(found, "up.weight").pinned
        assert len(found.guessed) == 1 or "order is changed" in (channels(found, "up.weight").pinned or "")
    known = toy(lambda x: x if torch.arange(3).sum() > 0 else x.flip(-1))
    assert channels(known, "up.weight").pinned is None and not known.notes


def test_neighbours_along_a_dimension_pin_it():
    for between in (lambda x: x.cumsum(-1), lambda x: x.flip(-1), lambda x: x.roll(1, -1)):
        assert channels(toy(between), "up.weight").pinned, between


def test_a_softmax_or_an_average_over_channels_pins_them():
    for between in (lambda x: x.softmax(-1), lambda x: x - x.mean(-1, keepdim=True)):
        assert "averages" in (channels(toy(between), "up.weight").pinned or "")


def test_a_constant_of_the_code_pins_what_it_multiplies():
    assert "indexed by it" in (channels(toy(lambda x: x * torch.arange(12)), "up.weight").pinned or "")


def test_a_forward_that_fails_is_an_error_with_the_place():
    def broken(x):
        raise ValueError("no such luck")

    with pytest.raises(ModelError, match="forward of Toy cannot be recorded: no such luck"):
        toy(broken)


def test_models_that_read_what_is_not_known_are_refused():
    class Smelling(Toy):
        main_input_name = "odours"

        def forward(self, odours):
            return odours

    with pytest.raises(ModelError, match="reads 'odours'"):
        inputs_of(Smelling().to("meta"))
