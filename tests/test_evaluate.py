"""Perplexity, likeness of embeddings, latency and size, each against a number known beforehand."""

from __future__ import annotations

import math

import pytest
import torch
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
from compress.evaluate import Perplexity, embed, latency, peak_memory, perplexity, similarity, size
from compress.evaluate.similarity import compare

SMALL = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=61)


@pytest.fixture
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SMALL, num_key_value_heads=2)).eval()


@pytest.fixture
def bert() -> BertModel:
    torch.manual_seed(0)
    return BertModel(BertConfig(**SMALL)).eval()


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
    with pytest.raises(InputError, match=r"predicts no tokens.*embeddings"):
        perplexity(bert, [{"input_ids": ids()}])
    with pytest.raises(InputError, match="at least two tokens"):
        perplexity(llama, [{"input_ids": ids(4, 1)}])


def test_perplexity_says_its_length() -> None:
    assert str(Perplexity(12.345, 128, 1000)) == "12.35 (sequences of 128 tokens)"


def test_embedding_is_the_mean_of_unmasked_tokens(bert: BertModel) -> None:
    padded, mask = functional.pad(ids(), (0, 5)), functional.pad(torch.ones_like(ids()), (0, 5))
    alone, length = embed(bert, [{"input_ids": ids()}])
    found, longest = embed(bert, [{"input_ids": padded, "attention_mask": mask}])
    assert (length, longest) == (12, 17)
    torch.testing.assert_close(found, alone)
    with torch.no_grad():
        torch.testing.assert_close(alone, bert(input_ids=ids()).last_hidden_state.mean(1))


def test_similarity_of_a_model_to_itself_is_one_and_falls_with_noise(bert: BertModel) -> None:
    batches = [{"input_ids": row} for row in ids(8).split(2)]
    same = similarity(bert, bert, batches)
    assert (same.cosine, same.ranks) == (pytest.approx(1), pytest.approx(1))
    other = BertModel(bert.config).eval()
    other.load_state_dict({name: value + 0.05 * torch.randn_like(value) for name, value in bert.state_dict().items()})
    near = similarity(bert, other, batches)
    assert near.cosine is not None and near.lowest is not None and near.ranks is not None
    assert 0 < near.lowest <= near.cosine < 0.999
    assert near.ranks < 0.999
    assert (near.samples, near.length) == (8, 12)


def test_embeddings_of_other_width_compare_by_ranks_only() -> None:
    one = torch.randn(20, 16, generator=torch.Generator().manual_seed(0))
    rotated = torch.cat([one, torch.zeros(20, 3)], 1) @ torch.linalg.qr(torch.randn(19, 19))[0]
    found = compare(one, rotated, 5)
    assert found.cosine is None and found.lowest is None
    assert found.ranks == pytest.approx(1, abs=1e-3)


def test_latency_is_the_median_of_its_repeats(llama: LlamaForCausalLM) -> None:
    calls = []
    llama.register_forward_hook(lambda *_: calls.append(0))
    found = latency(llama, {"input_ids": ids(2, 9)}, repeats=5, warm_up=1)
    assert len(calls) == 6
    assert 0 < found.fastest <= found.seconds < 5
    assert (found.batch, found.length, found.repeats) == (2, 9, 5)


def test_size_counts_ties_once(tmp_path) -> None:
    model = LlamaForCausalLM(LlamaConfig(**SMALL, num_key_value_heads=2, tie_word_embeddings=True))
    model.save_pretrained(tmp_path)
    found = size(tmp_path)
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert found.bytes == 4 * found.parameters


def test_peak_memory_is_in_bytes() -> None:
    assert 50e6 < peak_memory() < 1e12
