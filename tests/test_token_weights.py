"""Token weights: a weight of zero is a token that is not there, a whole number one that is there as often."""

import moe
import pytest
import torch
import zoo

from compress.calibrate.collect import collect
from compress.checkpoint.open import open_checkpoint
from compress.errors import InputError, ModelError
from compress.model.model import Model

INPUT = ("input_norm", "input_mean", "input_variance", "input_abs_mean", "input_gram", "projection")
LAYER = "model.layers.1"
DENSE = {
    **{key: {f"{LAYER}.{name}.weight" for name in ("self_attn.o_proj", "mlp.down_proj")} for key in INPUT},
    **{key: {"model.layers.0", LAYER} for key in ("block_cosine", "block_angle")},
    **{key: {f"{LAYER}.mlp.up_proj.weight"} for key in ("gradient", "fisher", "gradient_norm")},
}
EXPERTS = f"{LAYER}.mlp.experts"
ROUTED = {
    **{f"expert_{what}": {EXPERTS} for what in ("count", "gate", "norm", "gated_norm", "coactivation", "ratios")},
    "router_gram": {f"{LAYER}.mlp.gate.weight"},
    **{key: {f"{EXPERTS}.gate_up_proj", f"{EXPERTS}.down_proj"} for key in ("input_norm", "input_mean", "input_gram")},
    "input_abs_mean": {"model.embed_tokens.weight", "lm_head.weight"},
}
LENGTH, KEPT = 12, 7
IDS = moe.tokens(rows=4, length=LENGTH)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    zoo.save("llama", folder / "llama")
    moe.save("mixtral", folder / "mixtral")
    return {name: Model.of(open_checkpoint(folder / name)) for name in ("llama", "mixtral")}


def gathered(source, needs, batches, **options):
    return collect(source.checkpoint, source.graph, needs, batches, **options)


def assert_same(found, wanted, needs, scale=lambda name: 1.0):
    for name, keys in needs.items():
        for key in keys:
            expected = wanted[name][key] * scale(name)
            assert expected.abs().max() > 0
            torch.testing.assert_close(found[name][key], expected, rtol=1e-4, atol=1e-6, msg=f"{name} {key}")


@pytest.mark.parametrize(("model", "needs"), [("llama", DENSE), ("mixtral", ROUTED)])
def test_a_weight_of_zero_is_a_token_that_is_not_there(sources, model, needs):
    """What stands behind a token does not change a causal model's: texts that end there are the oracle."""
    weight = torch.ones(4, LENGTH)
    weight[:, KEPT:] = 0
    cut = [{"input_ids": IDS[:3, :KEPT]}, {"input_ids": IDS[3:, :KEPT]}]
    whole = [{"input_ids": IDS[rows], "token_weight": weight[rows]} for rows in (slice(3), slice(3, 4))]
    assert_same(gathered(sources[model], needs, whole), gathered(sources[model], needs, cut), needs)


@pytest.mark.parametrize(("model", "needs"), [("llama", DENSE), ("mixtral", ROUTED)])
def test_a_whole_number_is_a_token_that_is_there_as_often(sources, model, needs):
    needs = {name: keys for name, keys in needs.items() if name not in ("fisher", "gradient_norm")}  # sums over samples
    times = torch.tensor([1, 3, 0, 2])
    weight = times[:, None].expand(4, LENGTH)
    found = gathered(sources[model], needs, [{"input_ids": IDS, "token_weight": weight}])
    wanted = gathered(sources[model], needs, [{"input_ids": IDS.repeat_interleave(times, 0)}])
    assert_same(found, wanted, needs, lambda name: (6 / 4) ** 0.5 if name == "input_norm" else 1.0)


def test_weights_of_one_are_none(sources):
    weighed = [{"input_ids": IDS, "token_weight": torch.ones(4, LENGTH)}]
    assert_same(
        gathered(sources["llama"], DENSE, weighed), gathered(sources["llama"], DENSE, [{"input_ids": IDS}]), DENSE
    )


def test_batches_that_wait_for_each_other_are_weighed_too(sources):
    weight = torch.rand(4, LENGTH, generator=torch.Generator().manual_seed(0))
    batches = [{"input_ids": IDS[rows], "token_weight": weight[rows]} for rows in (slice(3), slice(3, 4))]
    needs = {name: DENSE[name] for name in ("input_norm", "input_gram")}
    seen = {}

    def change(where, module, stats):
        seen.update({(name, key): stats[name][key] for name in stats for key in stats[name]})

    waiting = gathered(sources["llama"], needs, batches, change=change, inside=True)
    wanted = gathered(sources["llama"], needs, batches)
    assert_same(waiting, wanted, needs)
    assert seen
    plain = gathered(sources["llama"], needs, [{"input_ids": IDS}])
    assert not any(
        torch.allclose(wanted[name][key], plain[name][key], rtol=1e-2) for name in needs for key in needs[name]
    )


def test_masked_labels_and_bare_encoders_are_weighed(tmp_path):
    """The gradient of a masked language model, and of an encoder's halves, by autograd on the stock model."""
    weight = torch.rand(2, LENGTH, generator=torch.Generator().manual_seed(0))
    ids = IDS[:2]
    for name, stem in (("bert", "bert.encoder"), ("bert_encoder", "encoder")):
        key = f"{stem}.layer.1.output.dense.weight"
        checkpoint, batch = zoo.save(name, tmp_path / name), {"input_ids": ids, "token_weight": weight}
        reference = zoo.stock(name, tmp_path / name)
        if name == "bert":
            batch["labels"] = torch.where(weight > 0.4, ids, -100)
            places = (weight > 0.4).nonzero().tolist()
            odds = reference(ids).logits.log_softmax(-1)
            loss = -sum(weight[i, j] * odds[i, j, ids[i, j]] for i, j in places) / sum(weight[i, j] for i, j in places)
        else:
            hidden = reference(ids).last_hidden_state * weight[..., None]
            loss = 1 - torch.cosine_similarity(hidden[:, :6].sum(1), hidden[:, 6:].sum(1), dim=-1).mean()
        loss.backward()
        stats = collect(checkpoint, zoo.graph(name), {"gradient": {key}}, [batch])
        expected = reference.get_parameter(key).grad
        torch.testing.assert_close(stats["gradient"][key], expected, rtol=1e-4, atol=1e-7)


def test_other_weights_are_other_data(sources):
    needs = {"input_norm": DENSE["input_norm"]}
    key = f"{LAYER}.mlp.down_proj.weight"

    def value(weight):
        more = {} if weight is None else {"token_weight": weight}
        return gathered(sources["llama"], needs, [{"input_ids": IDS, **more}], data_key="d")["input_norm"][key]

    half = torch.ones(4, LENGTH) / 4
    plain = value(None)
    torch.testing.assert_close(value(half), plain / 2, rtol=1e-4, atol=1e-6)
    assert torch.equal(value(None), plain)


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (torch.ones(3, LENGTH), r"batch 0 has weights of shape \[3, 12\]; give it \[4, tokens of a sample\]"),
        (-torch.ones(4, LENGTH), "batch 0 has -1; give it finite numbers"),
        (torch.full((4, LENGTH), torch.inf), "batch 0 has inf; give it finite numbers"),
    ],
)
def test_wrong_weights_are_refused(sources, weight, said):
    with pytest.raises(InputError, match=said):
        gathered(sources["llama"], DENSE, [{"input_ids": IDS, "token_weight": weight}])


def test_what_is_not_given_tokens_has_no_weights(tmp_path):
    checkpoint = zoo.save("bert_encoder", tmp_path)
    batch = {"input_ids": IDS, "token_weight": torch.ones(4, LENGTH)}
    with pytest.raises(ModelError, match=r"pooler\.dense\.weight: is given 4 rows, not one for each of .* 48 tokens"):
        collect(checkpoint, zoo.graph("bert_encoder"), {"input_norm": {"pooler.dense.weight"}}, [batch])
