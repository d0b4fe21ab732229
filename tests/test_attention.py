"""Attention read beside whatever computes it, against the weights that transformers' own eager attention gives."""

import moe
import pytest
import torch
import zoo
from transformers.modeling_utils import AttentionInterface

from compress.attention.watch import watch
from compress.errors import ModelError

LEFT_PADDED = torch.tensor([[0] * 4 + [1] * 8, [1] * 12])


def model_of(name, folder, implementation):
    zoo.save(name, folder)
    cls = zoo.ARCHITECTURES[name].cls
    return cls.from_pretrained(folder, attn_implementation=implementation).eval()


def run_watched(model, **inputs):
    """The output and every attention that ran."""
    calls = []
    undo = watch(model, lambda module, attention: calls.append(attention))
    try:
        with torch.no_grad():
            return model(**inputs), calls
    finally:
        undo()


def columns(weights, visible):
    """Mean over heads and over the queries that see a key, by a loop over keys; `visible` `[batch, queries, keys]`."""
    batch, _, queries, keys = weights.shape
    found = torch.zeros(batch, keys)
    for row in range(batch):
        for key in range(keys):
            who = [query for query in range(queries) if visible[row, query, key]]
            if who:
                found[row, key] = sum(weights[row, :, query, key].mean() for query in who) / len(who)
    return found


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", ["llama", "mistral", "gpt2", "bert"])  # grouped, windowed, plain, both ways
def test_rows_beside_sdpa_are_those_of_eager_attention(name, padded, tmp_path):
    model, eager = (model_of(name, tmp_path, implementation) for implementation in ("sdpa", "eager"))
    inputs = {**zoo.batches(name, rows=(2,))[0], **({"attention_mask": LEFT_PADDED} if padded else {})}
    with torch.no_grad():
        dense, wanted = model(**inputs).logits, eager(**inputs, output_attentions=True).attentions
    output, calls = run_watched(model, **inputs)
    assert torch.equal(output.logits, dense)  # the model computes what it did
    assert all(call.weights is None for call in calls) and len(calls) == len(wanted) == 3
    looking = LEFT_PADDED.bool() if padded else torch.ones(2, 12, dtype=torch.bool)
    places = torch.arange(12)
    visible = looking[:, None, :].expand(2, 12, 12).clone()
    if name != "bert":
        visible &= places[:, None] >= places
    if name == "mistral":
        visible &= places[:, None] - places < 8
    for call, weights in zip(calls, wanted, strict=True):
        for row, own in enumerate(looking):  # what padding looks at means nothing
            torch.testing.assert_close(call.rows()[row][:, own], weights[row][:, own], atol=1e-6, rtol=1e-5)
        assert torch.equal(call.rows(4, 9), call.rows()[:, :, 4:9])
        wanted_columns = columns(weights, visible)
        torch.testing.assert_close(call.received()[looking], wanted_columns[looking], atol=1e-6, rtol=1e-5)


def test_a_position_bias_and_a_cross_attention_are_read(tmp_path):
    model, eager = (model_of("t5", tmp_path, implementation) for implementation in ("sdpa", "eager"))
    inputs = zoo.batches("t5", rows=(2,))[0]
    _, calls = run_watched(model, **inputs)
    with torch.no_grad():
        found = eager(**inputs, output_attentions=True)
    own = [w for pair in zip(found.decoder_attentions, found.cross_attentions, strict=True) for w in pair]
    for call, weights in zip(calls, [*found.encoder_attentions, *own], strict=True):
        torch.testing.assert_close(call.rows(), weights, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["gpt_oss", "gemma2"])
def test_attention_that_is_eager_gives_its_own_weights(name, tmp_path):
    """GPT-OSS has sinks in its attention, Gemma 2 caps its scores."""
    if name == "gpt_oss":
        model, ids = moe.stock(name, moe.save(name, tmp_path)), moe.tokens(rows=2, length=12)
    else:
        model, ids = model_of(name, tmp_path, "eager"), zoo.batches(name, rows=(2,))[0]["input_ids"]
    with torch.no_grad():
        wanted = model(ids, output_attentions=True).attentions
    _, calls = run_watched(model, input_ids=ids)
    for call, weights in zip(calls, wanted, strict=True):
        assert torch.equal(call.rows(), weights)


def test_a_cache_s_keys_come_first(tmp_path):
    model = model_of("llama", tmp_path, "sdpa")
    ids = zoo.batches("llama", rows=(2,))[0]["input_ids"]
    _, whole = run_watched(model, input_ids=ids)
    with torch.no_grad():
        past = model(ids[:, :-1], use_cache=True).past_key_values
    _, calls = run_watched(model, input_ids=ids[:, -1:], past_key_values=past)
    for call, before in zip(calls, whole, strict=True):
        assert call.rows().shape == (2, 4, 1, 12)
        torch.testing.assert_close(call.rows(), before.rows(11), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(call.received(), before.rows(11).mean(1)[:, 0], atol=1e-6, rtol=1e-5)


def test_two_models_are_watched_apart_and_nothing_is_left_behind(tmp_path):
    lookup = AttentionInterface.get_interface
    first, second = model_of("llama", tmp_path / "a", "sdpa"), model_of("gpt2", tmp_path / "b", "sdpa")
    told = {"first": 0, "second": 0}
    undoing = [
        watch(model, lambda module, call, name=name: told.__setitem__(name, told[name] + 1))
        for name, model in (("first", first), ("second", second))
    ]
    ids = zoo.batches("llama")[0]["input_ids"]
    first(ids)
    assert told == {"first": 3, "second": 0}
    undoing[0]()
    first(ids)
    second(ids)
    assert told == {"first": 3, "second": 3}
    undoing[1]()
    assert AttentionInterface.get_interface is lookup


def test_what_cannot_be_computed_is_refused(tmp_path):
    model = model_of("gemma2", tmp_path, "eager")

    def capped(module, query, key, value, mask, softcap=None, **options):
        return value.transpose(1, 2), None

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(AttentionInterface._global_mapping, "sdpa", capped)
        model.config._attn_implementation = "sdpa"
        with pytest.raises(ModelError, match=r"Gemma2Attention: its attention has softcap .*'eager'"):
            run_watched(model, **zoo.batches("gemma2")[0])
