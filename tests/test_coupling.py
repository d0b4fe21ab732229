"""Coupled correctly means: a model without some groups computes what the full model does with their slices zero.

Every architecture and every family that is not pinned, with random groups removed, through files that stock
transformers opens.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from sliced import VARIANTS, answers, dense, filled, graph, kept_layers, masked, open_pruned, sliced, weights, word

from compress.errors import ModelError

# Last word of a family's name, by what is removed together. Queries and keys (`qk_dim`) and values (`v_dim`) are
# families of their own, while architectures know one width of a head.
TOGETHER = {
    "heads": ("heads",),
    "queries": ("queries",),
    "qk_dim": ("qk_dim",),
    "v_dim": ("v_dim",),
    "head_dim": ("qk_dim", "v_dim"),
    "channels, vocab": ("channels", "vocab"),
    "hidden": ("hidden",),
    "layers": ("layers",),
}

# How the result opens: "native" by stock classes, "generic" with the modeling file, "refused" by both. Removals that
# are not in the table have no family: queries without groups, the pinned width of rotary heads, shared layers.
COMMON = {"channels, vocab": "native", "layers": "native"}
# Rotary positions pin the width of queries and keys; the code views values by the same number.
ROTARY = {**COMMON, "heads": "native", "queries": "native", "hidden": "native", "v_dim": "refused"}
# The width of a head is hidden / heads: stock configurations cannot say either alone.
DERIVED = {**COMMON, "heads": "generic", "hidden": "generic"}
ONE_WIDTH = {"qk_dim": "refused", "v_dim": "refused", "head_dim": "generic"}
OUTCOMES: dict[str, dict[str, str]] = {
    **{name: ROTARY for name in ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3")},
    **{
        name: {**DERIVED, **ONE_WIDTH}
        for name in ("gpt2", "opt", "gpt_neox", "bert", "roberta", "distilbert", "electra")
    },
    "albert": {k: v for k, v in {**DERIVED, **ONE_WIDTH}.items() if k != "layers"},
    "bert_encoder": {k: v for k, v in {**DERIVED, **ONE_WIDTH}.items() if k != "hidden"},
    "falcon": DERIVED,
    "falcon_multi_head": DERIVED,
    "falcon_grouped": {**DERIVED, "queries": "generic"},
    "t5": {**COMMON, **ONE_WIDTH, "heads": "native", "hidden": "native", "head_dim": "native"},
}
PAIRS = [(name, removal) for name in VARIANTS for removal in OUTCOMES[name]]
QUICK = ("llama",)


def pairs(refused: bool) -> list[Any]:
    """(name, removal) of those that are refused, or of the others."""
    found = [pair for pair in PAIRS if (OUTCOMES[pair[0]][pair[1]] == "refused") == refused]
    return [pytest.param(*pair, marks=[] if pair[0] in QUICK else pytest.mark.slow) for pair in found]


SPECIAL = 4  # token ids that stay what they are: RoBERTa counts positions by the id of its padding


def how_many(name: str, removal: str, family: Any) -> int:
    """Groups that stay. Rotary GPT-NeoX has two of eight positions of a head rotated, hence outside of the families."""
    if name == "gpt_neox" and removal == "head_dim":
        return {"qk_dim": 4, "v_dim": 6}[word(family.name)]
    share = {"hidden": 0.75, "vocab": 0.8, "channels": 0.7}.get(family.kind, 0.5)
    return family.size - 1 if removal == "layers" else int(family.size * share)


def choose(name: str, removal: str, seed: int) -> dict[str, np.ndarray]:
    """Random groups of every family that may lose some."""
    rng = np.random.default_rng(seed)
    kept = {}
    for family in graph(name).families.values():
        if family.pinned is None and word(family.name) in TOGETHER[removal]:
            fixed = SPECIAL if family.kind == "vocab" else 0
            left = how_many(name, removal, family) - fixed
            kept[family.name] = np.arange(family.size) < fixed
            kept[family.name][fixed + rng.permutation(family.size - fixed)[:left]] = True
    return kept


@cache
def opened(name: str, removal: str, seed: int) -> tuple[str, Any]:
    """(how, model) of one choice; others of the same shapes are put into it."""
    head_dim = {"gpt_neox": 6}.get(name, 4) if removal == "head_dim" else None
    with tempfile.TemporaryDirectory() as folder:
        return open_pruned(name, choose(name, removal, seed), Path(folder), head_dim)


def same_layers(name: str, kept: dict, other: dict) -> bool:
    return kept_layers(name, kept) == kept_layers(name, other)


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    assert one.shape == other.shape and one.isfinite().all()
    return ((one - other).abs().max() / other.abs().max()).item()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "removal"), pairs(refused=False))
def test_without_the_groups_it_computes_the_model_with_their_slices_zero(name, removal):
    how, first = opened(name, removal, 0)
    assert how == OUTCOMES[name][removal]
    whole = answers(dense(name), {}, full=True)

    @given(st.integers(0, 2**20))
    @settings(max_examples=4, deadline=None, database=None)
    def check(seed: int) -> None:
        kept = choose(name, removal, seed)
        model = first
        if not same_layers(name, kept, choose(name, removal, 0)):  # sliding windows depend on which layers stay
            model = opened(name, removal, seed)[1]
        filled(model, sliced(name, kept))
        expected = answers(masked(name, kept, model), kept, full=True)
        assert distance(answers(model, kept, full=False), expected) <= 1e-4
        if expected.shape == whole.shape:  # the comparison would see a removal that did nothing
            assert distance(whole, expected) > 1e-3

    check()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "removal"), pairs(refused=True))
def test_what_no_architecture_can_hold_is_refused_with_the_reason(name, removal):
    with pytest.raises(ModelError, match=r"does not run with these shapes, whatever numbers its modules are given"):
        opened(name, removal, 0)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_family_that_may_lose_groups_is_in_the_table(name):
    free = [family for family in graph(name).families.values() if family.pinned is None]
    expected = {word for removal in OUTCOMES[name] for word in TOGETHER[removal]}
    assert {word(family.name) for family in free} == expected
    assert not Counter(family.kind for family in free) & Counter(["other", "experts"])


@pytest.mark.parametrize("name", VARIANTS)
def test_shapes_and_parameters_are_those_of_the_slices(name):
    found = graph(name)
    kept = {k: v for removal in OUTCOMES[name] for k, v in choose(name, removal, 1).items()}
    shapes = found.shapes(kept)
    state = sliced(name, kept)
    assert sorted(shapes.values()) == sorted(tuple(value.shape) for value in state.values())
    assert found.parameters(kept) == sum(value.numel() for value in state.values())
    assert 0 < found.flops(kept) < found.flops()


@pytest.mark.parametrize("name", zoo.few(["llama", "phi3", "gpt2", "gpt_neox", "falcon_grouped", "t5"], ("llama",)))
def test_the_comparison_sees_one_tensor_sliced_elsewhere(name):
    kept = choose(name, "channels, vocab", 3)
    family = next(f for f in graph(name).families.values() if f.kind == "channels" and f.name in kept)
    member = next(m for m in family.members if m.role == "in")
    _, model = opened(name, "channels, vocab", 0)
    state = sliced(name, kept)
    wrong = torch.from_numpy(~kept[family.name]).nonzero()[: int(kept[family.name].sum()), 0]
    moved = state[member.tensor].clone()
    moved.index_copy_(
        member.dim, torch.arange(len(wrong)), weights(name)[member.tensor].index_select(member.dim, wrong)
    )
    filled(model, {**state, member.tensor: moved})
    expected = answers(masked(name, kept, model), kept, full=True)
    assert distance(answers(model, kept, full=False), expected) > 1e-3
