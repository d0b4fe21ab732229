"""Perplexity, similarity of embeddings, latency and size, each against a number known beforehand."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch.nn import functional
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from compress.errors import InputError
from compress.evaluate.budget import Budget
from compress.evaluate.latency import latency
from compress.evaluate.read import quality_of, read_all
from compress.evaluate.size import peak_memory, size
from compress.evaluate.turns import ROUNDS, in_turns
from compress.inputs.choose import inputs_of
from compress.metrics.change import Change, difference, loss_change, similarity_change, time_change
from compress.metrics.mean import Mean
from compress.metrics.perplexity import Losses, Perplexity
from compress.metrics.similarity import Embeddings, EmbeddingSimilarity, Similarity, compare, sampled
from compress.tasks.choose import task_of

SMALL = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=61)


@pytest.fixture
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SMALL, num_key_value_heads=2)).eval()


@pytest.fixture
def bert() -> BertModel:
    torch.manual_seed(0)
    return BertModel(BertConfig(**SMALL)).eval()


def perplexity(model: torch.nn.Module, batches: list[dict[str, torch.Tensor]]) -> Perplexity:
    return Perplexity(**quality_of(model, batches).record["perplexity"])


def losses(model: torch.nn.Module, batches: list[dict[str, torch.Tensor]]) -> Losses:
    return read_all(model, task_of(model).metric(batches[0]), batches)


def embed(model: torch.nn.Module, batches: list[dict[str, torch.Tensor]]) -> Embeddings:
    return read_all(model, EmbeddingSimilarity(), batches)


def ids(samples: int = 4, length: int = 12) -> torch.Tensor:
    return torch.randint(0, 61, (samples, length), generator=torch.Generator().manual_seed(1))


def test_perplexity_of_a_model_that_knows_nothing_is_its_vocabulary(llama: LlamaForCausalLM) -> None:
    torch.nn.init.zeros_(llama.lm_head.weight)
    found = perplexity(llama, [{"input_ids": ids()}])
    assert found.value == pytest.approx(61)
    assert (found.length, found.tokens) == (12, 4 * 11)


def test_perplexity_is_transformers_own_loss(llama: LlamaForCausalLM) -> None:
    with torch.no_grad():
        loss = llama(input_ids=ids(), labels=ids()).loss.item()
    assert perplexity(llama, [{"input_ids": ids()}]).value == pytest.approx(math.exp(loss), rel=1e-5)


def test_perplexity_does_not_depend_on_batches_or_padding(llama: LlamaForCausalLM) -> None:
    whole = perplexity(llama, [{"input_ids": ids()}])
    assert perplexity(llama, [{"input_ids": row} for row in ids().split(1)]).value == pytest.approx(whole.value)
    padded = functional.pad(ids(), (0, 5))
    mask = functional.pad(torch.ones_like(ids()), (0, 5))
    found = perplexity(llama, [{"input_ids": padded, "attention_mask": mask}])
    assert found.value == pytest.approx(whole.value, rel=1e-5)
    assert found.tokens == whole.tokens


def test_perplexity_of_an_encoder_decoder_is_the_decoders() -> None:
    config = T5Config(d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4, vocab_size=61, decoder_start_token_id=0)
    model = T5ForConditionalGeneration(config).eval()
    target = ids(4, 7)
    found = perplexity(model, [{"input_ids": ids(), "decoder_input_ids": target}])
    with torch.no_grad():
        logits = model(input_ids=ids(), decoder_input_ids=target).logits
    loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), target[:, 1:].flatten())
    assert found.value == pytest.approx(loss.exp().item(), rel=1e-5)


def test_perplexity_of_a_masked_language_model_counts_its_labels() -> None:
    model = BertForMaskedLM(BertConfig(**SMALL)).eval()
    masked, labels = ids().clone(), torch.full_like(ids(), -100)
    masked[:, 3], labels[:, 3] = 0, ids()[:, 3]
    found = perplexity(model, [{"input_ids": masked, "labels": labels}])
    with torch.no_grad():
        loss = model(input_ids=masked, labels=labels).loss.item()
    assert (found.value, found.tokens) == (pytest.approx(math.exp(loss), rel=1e-5), 4)
    with pytest.raises(InputError, match="no perplexity"):
        perplexity(model, [{"input_ids": ids()}])


def test_perplexity_refuses_an_encoder_and_single_tokens(bert: BertModel, llama: LlamaForCausalLM) -> None:
    with pytest.raises(InputError, match="beside the dense model"):
        _ = quality_of(bert, [{"input_ids": ids()}]).main
    with pytest.raises(InputError, match="at least two tokens"):
        perplexity(llama, [{"input_ids": ids(4, 1)}])


def test_perplexity_says_its_length() -> None:
    assert str(Perplexity(12.345, 128, 1000, 8)) == "12.35 (8 sequences of 128 tokens)"


def test_embedding_is_the_mean_of_unmasked_tokens(bert: BertModel) -> None:
    padded, mask = functional.pad(ids(), (0, 5)), functional.pad(torch.ones_like(ids()), (0, 5))
    alone = embed(bert, [{"input_ids": ids()}])
    found = embed(bert, [{"input_ids": padded, "attention_mask": mask}])
    assert (alone.length, found.length) == (12, 17)
    torch.testing.assert_close(found.values, alone.values)
    with torch.no_grad():
        torch.testing.assert_close(alone.values, bert(input_ids=ids()).last_hidden_state.mean(1))


def test_similarity_of_a_model_to_itself_is_one_and_falls_with_noise(bert: BertModel) -> None:
    batches = [{"input_ids": row} for row in ids(8).split(2)]
    same = Similarity(**quality_of(bert, batches, dense=bert).record["similarity"])
    assert (same.cosine, same.ranks) == (pytest.approx(1), pytest.approx(1))
    other = BertModel(bert.config).eval()
    other.load_state_dict({name: value + 0.05 * torch.randn_like(value) for name, value in bert.state_dict().items()})
    near = Similarity(**quality_of(other, batches, dense=bert).record["similarity"])
    assert near.cosine is not None and near.lowest is not None and near.ranks is not None
    assert 0 < near.lowest <= near.cosine < 0.999
    assert near.ranks < 0.999
    assert (near.samples, near.length) == (8, 12)


def test_embeddings_of_other_width_compare_by_ranks_only() -> None:
    one = torch.randn(20, 16, generator=torch.Generator().manual_seed(0))
    rotated = torch.cat([one, torch.zeros(20, 3)], 1) @ torch.linalg.qr(torch.randn(19, 19))[0]
    found = compare(Embeddings(one, 5), Embeddings(rotated, 5))
    assert found.cosine is None and found.lowest is None
    assert found.ranks == pytest.approx(1, abs=1e-3)


def test_latency_is_the_median_of_its_repeats(llama: LlamaForCausalLM) -> None:
    calls = []
    llama.register_forward_hook(lambda *_: calls.append(0))
    found = latency(llama, inputs_of(llama), {"input_ids": ids(2, 9)}, repeats=5, warm_up=1)
    assert len(calls) == 6
    assert 0 < found.fastest <= found.seconds < 5
    assert (found.batch, found.length, found.repeats) == (2, 9, 5)


def test_the_error_of_a_difference_is_that_of_the_texts_differences(llama: LlamaForCausalLM) -> None:
    other = LlamaForCausalLM(llama.config).eval()
    batches = [{"input_ids": rows} for rows in ids(12).split(4)]
    one, two = losses(llama, batches), losses(other, batches)
    with torch.no_grad():
        by_hand = [
            np.array([model(input_ids=row[None], labels=row[None]).loss.item() for row in ids(12)])
            for model in (llama, other)
        ]
    apart = by_hand[1] - by_hand[0]
    error = apart.std(ddof=1) / np.sqrt(12)
    assert difference(one.mean, two.mean) == (pytest.approx(apart.mean(), rel=1e-4), pytest.approx(error, rel=1e-4))
    change = loss_change(one.mean, two.mean)
    expected = np.exp([apart.mean(), apart.mean() - 2 * error, apart.mean() + 2 * error])
    assert (change.value, change.low, change.high) == pytest.approx(tuple(expected), rel=1e-4)
    assert not loss_change(one.mean, one.mean).measurable


@pytest.mark.slow
def test_the_error_of_a_correlation_is_what_other_texts_would_give() -> None:
    generator = torch.Generator().manual_seed(0)

    def drawn(texts: int) -> tuple[torch.Tensor, torch.Tensor]:
        one = torch.randn(texts, 16, generator=generator)
        return one, one + 0.3 * torch.randn(texts, 16, generator=generator)

    values = {name: np.array([sampled(*drawn(40))[name].value for _ in range(60)]) for name in ("cosine", "ranks")}
    one, other = drawn(40)
    found, whole = sampled(one, other), compare(Embeddings(one, 5), Embeddings(other, 5))
    assert (found["cosine"].value, found["ranks"].value) == (pytest.approx(whole.cosine), pytest.approx(whole.ranks))
    for name, value in found.items():
        change = similarity_change(value, 40)
        assert (change.high - change.low) / 4 == pytest.approx(values[name].std(), rel=0.5)
        assert change.measurable
    assert not any(similarity_change(value, 40).measurable for value in sampled(one, one).values())
    cosines = functional.cosine_similarity(one, other).numpy()
    change = similarity_change(found["cosine"], 40)
    assert (change.high - change.low) / 4 == pytest.approx(cosines.std(ddof=1) / np.sqrt(40), rel=1e-4)


def test_the_mean_of_a_number_has_the_ratio_and_the_error_of_its_samples() -> None:
    generator = np.random.default_rng(0)

    def drawn(samples: int) -> tuple[np.ndarray, np.ndarray]:
        one = generator.gamma(4.0, size=samples)
        return one, 1.3 * one + generator.normal(scale=0.4, size=samples)

    metric = Mean("error", "Squared error", lambda output, batch: output, higher_is_better=False)
    one, other = (torch.from_numpy(values) for values in drawn(50))
    dense, pruned = (metric.merged([metric.read(some, {}) for some in values.split(20)]) for values in (one, other))
    quality = metric.quality(pruned, dense)
    assert (quality.main.value, quality.main.dense) == (pytest.approx(other.mean()), pytest.approx(one.mean()))
    assert quality.record == {"error": {"value": pytest.approx(other.mean()), "samples": 50}}
    change = quality.changes["error"]
    assert change.value == pytest.approx((other.mean() / one.mean()).item())
    ratios = [after.mean() / before.mean() for before, after in (drawn(50) for _ in range(400))]
    assert (change.high - change.low) / 4 == pytest.approx(np.std(ratios), rel=0.3)
    assert change.measurable and not metric.quality(dense, dense).changes["error"].measurable
    nothing = metric.quality(pruned, torch.zeros(50))
    assert nothing.changes == {} and nothing.main.dense == 0  # which has no multiple


def test_ratios_of_times_have_the_interval_of_the_sign_test() -> None:
    before = [1.0] * 9
    after = [0.5, 0.9, 0.7, 0.6, 0.8, 2.0, 0.65, 0.75, 0.72]  # of nine, the second smallest to the second largest
    assert time_change(before, after) == Change(0.72, 0.6, 0.9, 9)
    assert time_change(before, after).measurable
    assert not time_change(before, [*after[:7], 1.2, 1.3]).measurable
    assert time_change([1.0] * 6, [0.5, 0.9, 0.7, 0.6, 0.8, 1.1]).high == 1.1  # all of six
    assert binom.cdf(1, 9, 0.5) * 2 <= 0.05 < binom.cdf(2, 9, 0.5) * 2
    assert time_change([1.0] * 15, [float(i) for i in range(1, 16)]).low == binom.ppf(0.025, 15, 0.5)


def test_rounds_go_in_turns_until_the_budget_is_spent() -> None:
    said: list[str] = []

    def timed(name: str, now: list[float]) -> Callable[[], float]:
        def run() -> float:
            said.append(name)
            now[0] += 1
            return 1.0

        return run

    def rounds(seconds: float | None) -> int | None:
        said.clear()
        now = [0.0]
        found = in_turns(timed("A", now), timed("B", now), Budget(seconds, lambda: now[0]))
        return None if found is None else len(found[0])

    assert rounds(None) == ROUNDS
    assert said[4:12] == ["A", "B", "B", "A", "A", "B", "B", "A"]
    assert rounds(20) == 8  # two rounds to warm up, then 16 seconds
    assert rounds(16) == 6
    assert rounds(12) is None and len(said) == 2  # six rounds do not fit into what the first leaves


def test_size_counts_ties_once(tmp_path) -> None:
    model = LlamaForCausalLM(LlamaConfig(**SMALL, num_key_value_heads=2, tie_word_embeddings=True))
    model.save_pretrained(tmp_path)
    found = size(tmp_path)
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert found.bytes == 4 * found.parameters


def test_peak_memory_is_in_bytes() -> None:
    assert 50e6 < peak_memory() < 1e12
