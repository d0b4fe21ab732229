"""Tiny random models, and an independent statement of which slices of theirs go together."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import transformers as tf
from torch import nn

from compress.graph.layout import Axis, Layout, Product, Sum, keep_mask

HEADS, GROUPS, WIDTH, HIDDEN, CHANNELS, VOCAB = 8, 4, 8, 64, 112, 96
CORE = dict(hidden_size=HIDDEN, num_hidden_layers=3, num_attention_heads=HEADS, vocab_size=VOCAB)
PLAIN = dict(**CORE, intermediate_size=CHANNELS, max_position_embeddings=64)
IDS = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2)
GROUPED = dict(**PLAIN, **IDS, num_key_value_heads=GROUPS)

C = Axis("channels", CHANNELS)
ONE = Product((Axis("heads", HEADS), Axis("width", WIDTH)))
Q = Product((Axis("heads", GROUPS), Axis("queries", HEADS // GROUPS), Axis("width", WIDTH)))
KV = Product((Axis("heads", GROUPS), Axis("width", WIDTH)))
LONE = Axis("width", WIDTH)

# (tensor within a block, dimension, layout); the consumer of what a family produces is marked by "<".
Rows = tuple[tuple[str, int, Layout], ...]


def _rows(table: dict[str, tuple[int, Layout]]) -> Rows:
    return tuple((name, dim, layout) for names, (dim, layout) in table.items() for name in names.split())


GATED = {"mlp.gate_proj.weight mlp.up_proj.weight": (0, C), "<mlp.down_proj.weight": (1, C)}
LLAMA = _rows(
    {
        "self_attn.q_proj.weight self_attn.q_proj.bias": (0, Q),
        "self_attn.k_proj.weight self_attn.v_proj.weight self_attn.k_proj.bias self_attn.v_proj.bias": (0, KV),
        "<self_attn.o_proj.weight": (1, Q),
        **GATED,
    }
)
BERT = _rows(
    {
        " ".join(f"attention.self.{x}.{y}" for x in ("query", "key", "value") for y in ("weight", "bias")): (0, ONE),
        "<attention.output.dense.weight": (1, ONE),
        "intermediate.dense.weight intermediate.dense.bias": (0, C),
        "<output.dense.weight": (1, C),
    }
)


@dataclass(frozen=True)
class Case:
    config: Callable[[], tf.PretrainedConfig]
    architecture: str
    blocks: str  # pattern of a block's name
    rows: Rows
    channels: int = CHANNELS

    @property
    def cls(self) -> type:
        return getattr(tf, self.architecture)

    def model(self) -> nn.Module:
        """Random weights big enough that a wrong slice shows."""
        torch.manual_seed(0)
        model = self.cls(self.config()).eval()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.2)
        return model


def _case(config: str, architecture: str, blocks: str, rows: Rows, channels: int = CHANNELS, **values) -> Case:
    return Case(lambda: getattr(tf, config)(**values), architecture, blocks, rows, channels)


DECODER, ENCODER = r"model\.layers\.(\d+)\.", r"\w+\.encoder\.layer\.(\d+)\."
FF4 = Axis("channels", 4 * HIDDEN)
CASES = {
    "llama": _case("LlamaConfig", "LlamaForCausalLM", DECODER, LLAMA, **GROUPED),
    "mistral": _case("MistralConfig", "MistralForCausalLM", DECODER, LLAMA, **GROUPED, sliding_window=None),
    "qwen2": _case("Qwen2Config", "Qwen2ForCausalLM", DECODER, LLAMA, **GROUPED, tie_word_embeddings=True),
    "qwen3": _case("Qwen3Config", "Qwen3ForCausalLM", DECODER, LLAMA, **GROUPED, head_dim=WIDTH),
    "gemma2": _case("Gemma2Config", "Gemma2ForCausalLM", DECODER, LLAMA, **GROUPED, head_dim=WIDTH),
    "gemma3": _case("Gemma3TextConfig", "Gemma3ForCausalLM", DECODER, LLAMA, **GROUPED, head_dim=WIDTH),
    "phi3": _case(
        "Phi3Config",
        "Phi3ForCausalLM",
        DECODER,
        _rows(
            {
                "self_attn.qkv_proj.weight": (0, Sum((Q, KV, KV))),
                "<self_attn.o_proj.weight": (1, Q),
                "mlp.gate_up_proj.weight": (0, Sum((C, C))),
                "<mlp.down_proj.weight": (1, C),
            }
        ),
        **GROUPED,
    ),
    "gpt2": _case(
        "GPT2Config",
        "GPT2LMHeadModel",
        r"transformer\.h\.(\d+)\.",
        (
            ("attn.c_attn.weight", 1, Sum((ONE, ONE, ONE))),
            ("attn.c_attn.bias", 0, Sum((ONE, ONE, ONE))),
            ("<attn.c_proj.weight", 0, ONE),
            ("mlp.c_fc.weight", 1, FF4),
            ("mlp.c_fc.bias", 0, FF4),
            ("<mlp.c_proj.weight", 0, FF4),
        ),
        4 * HIDDEN,
        **dict(
            n_embd=HIDDEN, n_layer=3, n_head=HEADS, vocab_size=VOCAB, n_positions=64, bos_token_id=1, eos_token_id=2
        ),
    ),
    "opt": _case(
        "OPTConfig",
        "OPTForCausalLM",
        r"model\.decoder\.layers\.(\d+)\.",
        _rows(
            {
                " ".join(f"self_attn.{x}_proj.{y}" for x in "qkv" for y in ("weight", "bias")): (0, ONE),
                "<self_attn.out_proj.weight": (1, ONE),
                "fc1.weight fc1.bias": (0, C),
                "<fc2.weight": (1, C),
            }
        ),
        **CORE,
        ffn_dim=CHANNELS,
        max_position_embeddings=64,
        word_embed_proj_dim=HIDDEN,
    ),
    "gpt_neox": _case(
        "GPTNeoXConfig",
        "GPTNeoXForCausalLM",
        r"gpt_neox\.layers\.(\d+)\.",
        _rows(
            {
                "attention.query_key_value.weight attention.query_key_value.bias": (
                    0,
                    Product((Axis("heads", HEADS), Sum((LONE, LONE, LONE)))),
                ),
                "<attention.dense.weight": (1, ONE),
                "mlp.dense_h_to_4h.weight mlp.dense_h_to_4h.bias": (0, C),
                "<mlp.dense_4h_to_h.weight": (1, C),
            }
        ),
        **PLAIN,
        **IDS,
    ),
    "falcon": _case(
        "FalconConfig",
        "FalconForCausalLM",
        r"transformer\.h\.(\d+)\.",
        _rows(
            {
                "self_attention.query_key_value.weight": (0, Sum((ONE, LONE, LONE))),
                "<self_attention.dense.weight": (1, ONE),
                "mlp.dense_h_to_4h.weight": (0, FF4),
                "<mlp.dense_4h_to_h.weight": (1, FF4),
            }
        ),
        4 * HIDDEN,
        **CORE,
        multi_query=True,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "bert": _case("BertConfig", "BertForMaskedLM", ENCODER, BERT, **PLAIN),
    "roberta": _case("RobertaConfig", "RobertaForMaskedLM", ENCODER, BERT, **PLAIN),
    "electra": _case("ElectraConfig", "ElectraForMaskedLM", ENCODER, BERT, **PLAIN, embedding_size=32),
    "distilbert": _case(
        "DistilBertConfig",
        "DistilBertForMaskedLM",
        r"distilbert\.transformer\.layer\.(\d+)\.",
        _rows(
            {
                " ".join(f"attention.{x}_lin.{y}" for x in "qkv" for y in ("weight", "bias")): (0, ONE),
                "<attention.out_lin.weight": (1, ONE),
                "ffn.lin1.weight ffn.lin1.bias": (0, C),
                "<ffn.lin2.weight": (1, C),
            }
        ),
        dim=HIDDEN,
        n_layers=3,
        n_heads=HEADS,
        hidden_dim=CHANNELS,
        vocab_size=VOCAB,
        max_position_embeddings=64,
    ),
    "albert": _case(
        "AlbertConfig",
        "AlbertForMaskedLM",
        r"albert\.encoder\.albert_layer_groups\.(\d+)\.albert_layers\.0\.",
        _rows(
            {
                " ".join(f"attention.{x}.{y}" for x in ("query", "key", "value") for y in ("weight", "bias")): (0, ONE),
                "<attention.dense.weight": (1, ONE),
                "ffn.weight ffn.bias": (0, C),
                "<ffn_output.weight": (1, C),
            }
        ),
        **PLAIN,
        embedding_size=32,
    ),
    "t5": _case(
        "T5Config",
        "T5ForConditionalGeneration",
        r"(?:en|de)coder\.block\.(\d+)\.",
        _rows(
            {
                "layer.0.SelfAttention.q.weight layer.0.SelfAttention.k.weight layer.0.SelfAttention.v.weight": (
                    0,
                    ONE,
                ),
                "<layer.0.SelfAttention.o.weight": (1, ONE),
                "layer.0.SelfAttention.relative_attention_bias.weight": (1, Axis("heads", HEADS)),
                "layer.1.EncDecAttention.q.weight layer.1.EncDecAttention.k.weight layer.1.EncDecAttention.v.weight": (
                    0,
                    ONE,
                ),
                "<layer.1.EncDecAttention.o.weight": (1, ONE),
                "layer.1.DenseReluDense.wi.weight layer.2.DenseReluDense.wi.weight": (0, C),
                "<layer.1.DenseReluDense.wo.weight": (1, C),
                "<layer.2.DenseReluDense.wo.weight": (1, C),
            }
        ),
        d_model=HIDDEN,
        d_kv=WIDTH,
        d_ff=CHANNELS,
        num_layers=3,
        num_heads=HEADS,
        vocab_size=VOCAB,
        decoder_start_token_id=0,
    ),
}


def cut(case: Case, model: nn.Module, kept: Callable[[int], Mapping[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """State dict without the slices that `kept(layer)` drops; in `model` their contribution becomes zero."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rows = {name.lstrip("<"): (name[0] == "<", dim, layout) for name, dim, layout in case.rows}
    for name, tensor in model.state_dict().items():
        found = re.match(case.blocks, name)
        row = rows.get(name[found.end() :]) if found else None
        if found is None or row is None:
            continue
        consumer, dim, layout = row
        mask = torch.from_numpy(keep_mask(layout, kept(int(found[1]))))
        state[name] = tensor.index_select(dim, mask.nonzero().flatten()).contiguous()
        if consumer:
            with torch.no_grad():
                tensor.index_fill_(dim, (~mask).nonzero().flatten(), 0)
    return state


def masks(case: Case, heads: int, channels: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random masks that keep so many kv groups (or heads) and channels."""
    rng = np.random.default_rng(seed)
    groups = next(_size(layout) for _, _, layout in case.rows)
    return {"heads": _mask(rng, groups, heads), "channels": _mask(rng, case.channels, channels)}


def _size(layout: Layout) -> int:
    while not isinstance(layout, Axis):
        layout = layout.parts[0]
    return layout.size


def _mask(rng: np.random.Generator, size: int, keep: int) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[rng.permutation(size)[:keep]] = True
    return mask


def logits(model: nn.Module) -> torch.Tensor:
    """Logits of two fixed sequences of 13 tokens."""
    ids = torch.randint(3, VOCAB, (2, 13), generator=torch.Generator().manual_seed(1))
    more = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}  # pyright: ignore
    with torch.no_grad():
        return model(input_ids=ids, **more).logits
