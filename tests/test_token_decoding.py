"""What is written after visual tokens went: by every way to decode, and in further turns."""

from __future__ import annotations

import copy

import pytest
import torch
import vlms
from by_hand import Hand, deep
from pruned_tokens import gone, hiding, kept, obeying
from test_token_runtime import BEFORE, INSIDE, THRICE
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import flash_attention_mask

BLIND = [{"at": {"decoder": layer}, "keep": keep, "select": "uniform"} for layer, keep in ((2, 0.4), (3, 0.2))]
"""Stages that keep the same tokens whatever is written later."""
SOME = ("llava-clip", "qwen2.5-vl", "gemma3")
SECOND = torch.randint(1, 90, (2, 5), generator=torch.Generator().manual_seed(7))


def written(model, given, seed=0, **how):
    torch.manual_seed(seed)
    with torch.no_grad():
        return model.generate(**given, **{"max_new_tokens": 5, "do_sample": False, **how})[:, -5:].tolist()


def prefilled(model, given):
    """What a model gives, and what its layers do without."""
    output = model(**given, past_key_values=DynamicCache(config=model.config.get_text_config()))
    return output, gone(output, given, 4)


@pytest.mark.parametrize("how", [{"do_sample": True, "top_k": 0}, {"num_beams": 3}], ids=["sampled", "beams"])
@pytest.mark.parametrize("name", ["llava-clip", "qwen2.5-vl"])
def test_drawn_and_beams(name, how):
    model, given = vlms.vlm(name), vlms.ragged(name)
    with torch.no_grad(), obeying(model, *THRICE):
        _, hidden = prefilled(model, given)
        found = [written(model, given, seed, **how) for seed in range(2)]
    with hiding(model, hidden):
        assert [written(model, given, seed, **how) for seed in range(2)] == found
    assert found != [written(model, given, seed, **how) for seed in range(2)]


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("stages", [BEFORE, BLIND], ids=["before", "inside"])
@pytest.mark.parametrize("name", SOME)
def test_a_cache_writes_what_is_written_without(name, stages, beams):
    model, given = vlms.vlm(name), vlms.prompt(name, pad=2)
    with obeying(model, *stages):
        found = written(model, given, num_beams=beams)
        assert written(model, given, num_beams=beams, use_cache=False) == found


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", SOME)
def test_decoding_by_hand_needs_no_positions(name, padded):
    model = vlms.vlm(name)
    given = vlms.prompt(name, pad=3) if padded else vlms.prompt(name)
    place = {"position_ids": (given["attention_mask"].cumsum(1) - 1).clamp_min(0)} if padded else {}
    if name in vlms.GRIDS:
        place = {}
    with torch.no_grad(), obeying(model, *THRICE):
        expected = written(model, given)
        output, mask, found = model(**given, **place, use_cache=True), given["attention_mask"], []
        for _ in range(5):
            found.append(output.logits[:, -1:].argmax(-1))
            mask = torch.cat([mask, torch.ones_like(found[-1])], 1)
            more = {"attention_mask": mask} if padded else {}
            if padded and place:
                more["position_ids"] = mask.sum(1, keepdim=True) - 1
            output = model(input_ids=found[-1], past_key_values=output.past_key_values, **more)
    assert torch.cat(found, 1).tolist() == expected


@pytest.mark.parametrize("stages", [BEFORE, THRICE], ids=["before", "thrice"])
@pytest.mark.parametrize(
    ("name", "kind"),
    [("llava-clip", "sdpa"), ("qwen2.5-vl", "sdpa"), ("qwen3-vl", "eager"), ("gemma3", "sdpa"), ("gemma3", "eager")],
)
def test_a_second_turn_goes_on_with_the_same_cache(name, kind, stages):
    model = vlms.vlm(name) if kind == "sdpa" else vlms.eager(name)
    given = vlms.ragged(name)
    more = torch.cat([given["attention_mask"], torch.ones(2, 8, dtype=torch.long)], 1)

    def turns(dense=False):
        output = model(**given, past_key_values=DynamicCache(config=model.config.get_text_config()))
        found, seen = [], given["input_ids"].shape[1]
        for part in (SECOND, SECOND[:, :1], SECOND[:, :2]):
            seen += part.shape[1]
            some = {"input_ids": part, "attention_mask": more[:, :seen]}
            if dense and name in vlms.GRIDS:  # which stock software has for single tokens only
                place = (more[:, :seen].cumsum(1) - 1)[:, -part.shape[1] :] + model.model.rope_deltas
                some["position_ids"] = place.expand(3, -1, -1)
            found.append(model(past_key_values=output.past_key_values, **some).logits)
        return output, torch.cat(found, 1)

    with torch.no_grad():
        with obeying(model, *stages):
            output, found = turns()
        with hiding(model, gone(output, given, 4)):
            _, expected = turns(dense=True)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("stage", [BEFORE[0], INSIDE[0]], ids=["before", "inside"])
def test_positions_that_are_counted_anew(stage):
    model, eager = deep()
    given = vlms.prompt("llava-clip", rows=1, seed=2)
    some = {"max_new_tokens": 4, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    layer = 2 if "at" in stage else 0
    with torch.no_grad(), obeying(model, {**stage, "positions": "renumber"}):
        tokens = kept(model(**given), layer)
        found = model.generate(**given, **some)
    ids = found.sequences
    hand = Hand(eager, {**given, "input_ids": ids[:, :-1]})
    left = [token - int(hand.picture[0]) for token in tokens if token in hand.picture.tolist()]
    states = hand.run({layer: [lambda hand: hand.keep(left)]}, renumbered=layer)
    logits = eager.lm_head(states)[-4:]
    torch.testing.assert_close(torch.cat(found.logits), logits, rtol=1e-3, atol=2e-4)
    assert left != list(range(len(left)))
    batch = vlms.prompt("llava-clip", pad=3)
    with obeying(model, {**stage, "positions": "renumber"}):
        alone = [written(model, vlms.alone(batch, row, pad))[0] for row, pad in ((0, 3), (1, 0))]
        assert written(model, batch) == alone


def test_half_precision():
    model, given = copy.deepcopy(vlms.vlm("llava-clip")).bfloat16(), vlms.ragged("llava-clip")
    given["pixel_values"] = given["pixel_values"].bfloat16()
    with torch.no_grad():
        dense = model(**given).logits
        with obeying(model, {"keep": 1.0, "select": "max_min"}, {**INSIDE[0], "keep": 1.0}):
            assert torch.equal(model(**given).logits, dense)
        with obeying(model, *THRICE):
            output, hidden = prefilled(model, given)
            found = written(model, given)
        with hiding(model, hidden):
            assert written(model, given) == found
            assert (model(**given).logits[:, -1] - output.logits[:, -1]).abs().max() < 0.1
    assert output.logits.dtype == torch.bfloat16


def test_a_model_is_itself_again():
    model, given = vlms.vlm("qwen3-vl"), vlms.prompt("qwen3-vl")

    def state():
        hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
        return {
            name: (sorted(vars(module)), [len(getattr(module, hook)) for hook in hooks])
            for name, module in model.named_modules()
        }, sorted(model.state_dict())

    with torch.no_grad():
        dense = model(**given).logits
        before = state()
        with obeying(model, *THRICE):
            assert not torch.equal(model(**given).logits, dense)
            assert state()[1] == before[1] and state() != before
        assert state() == before and torch.equal(model(**given).logits, dense)


@pytest.fixture
def flash():
    """An attention that is told what flash attention is: masks of keys, or none."""

    def attend(module, query, key, value, mask, scaling=None, **kwargs):
        assert mask is None or mask.shape == (len(key), key.shape[2])
        visible = torch.ones(len(key), 1, query.shape[2], key.shape[2], dtype=torch.bool)
        visible = visible.tril(key.shape[2] - query.shape[2])
        if mask is not None:
            visible = visible & mask[:, None, None].bool()
        return sdpa_attention_forward(module, query, key, value, visible, scaling=scaling, **kwargs)

    name = "flash_told"
    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, flash_attention_mask)
    yield name
    del AttentionInterface._global_mapping[name], AttentionMaskInterface._global_mapping[name]


@pytest.mark.parametrize("name", ["llava-clip", "qwen3-vl"])
@pytest.mark.parametrize("stages", [BEFORE, BLIND], ids=["before", "inside"])
def test_masks_of_keys_alone(name, stages, flash):
    model = copy.deepcopy(vlms.vlm(name))
    language = model.model.language_model
    for given in (vlms.ragged(name), vlms.prompt(name, rows=1)):
        language.config._attn_implementation = "sdpa"
        with obeying(model, *stages):
            expected = written(model, given)
            language.config._attn_implementation = flash
            assert written(model, given) == expected
