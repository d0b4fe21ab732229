"""An independent statement of which slices of the zoo's models go together, and models pruned by it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import zoo
from torch import nn

from compress.graph.layout import Axis, Layout, Product, Sum, families, keep_mask

SIZE = zoo.Size(hidden=64, heads=8, groups=4, width=8, channels=112)
HEADS, GROUPS, WIDTH, CHANNELS = SIZE.heads, SIZE.groups, SIZE.width, SIZE.channels

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


FF4 = Axis("channels", 4 * SIZE.hidden)
ROWS: dict[str, Rows] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3"), LLAMA),
    **dict.fromkeys(("bert", "roberta", "electra"), BERT),
    "phi3": _rows(
        {
            "self_attn.qkv_proj.weight": (0, Sum((Q, KV, KV))),
            "<self_attn.o_proj.weight": (1, Q),
            "mlp.gate_up_proj.weight": (0, Sum((C, C))),
            "<mlp.down_proj.weight": (1, C),
        }
    ),
    "gpt2": (
        ("attn.c_attn.weight", 1, Sum((ONE, ONE, ONE))),
        ("attn.c_attn.bias", 0, Sum((ONE, ONE, ONE))),
        ("<attn.c_proj.weight", 0, ONE),
        ("mlp.c_fc.weight", 1, FF4),
        ("mlp.c_fc.bias", 0, FF4),
        ("<mlp.c_proj.weight", 0, FF4),
    ),
    "opt": _rows(
        {
            " ".join(f"self_attn.{x}_proj.{y}" for x in "qkv" for y in ("weight", "bias")): (0, ONE),
            "<self_attn.out_proj.weight": (1, ONE),
            "fc1.weight fc1.bias": (0, C),
            "<fc2.weight": (1, C),
        }
    ),
    "gpt_neox": _rows(
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
    "falcon": _rows(
        {
            "self_attention.query_key_value.weight": (0, Sum((ONE, LONE, LONE))),
            "<self_attention.dense.weight": (1, ONE),
            "mlp.dense_h_to_4h.weight": (0, FF4),
            "<mlp.dense_4h_to_h.weight": (1, FF4),
        }
    ),
    "distilbert": _rows(
        {
            " ".join(f"attention.{x}_lin.{y}" for x in "qkv" for y in ("weight", "bias")): (0, ONE),
            "<attention.out_lin.weight": (1, ONE),
            "ffn.lin1.weight ffn.lin1.bias": (0, C),
            "<ffn.lin2.weight": (1, C),
        }
    ),
    "albert": _rows(
        {
            " ".join(f"attention.{x}.{y}" for x in ("query", "key", "value") for y in ("weight", "bias")): (0, ONE),
            "<attention.dense.weight": (1, ONE),
            "ffn.weight ffn.bias": (0, C),
            "<ffn_output.weight": (1, C),
        }
    ),
    "t5": _rows(
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
}
CHANGES: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": False},
    "mistral": {"sliding_window": None},
    "qwen2": {"tie_word_embeddings": True},
    "albert": {"embedding_size": 32},
    "electra": {"embedding_size": 32},
    "t5": {"decoder_start_token_id": 0},
}


@dataclass(frozen=True)
class Case:
    """A model of the zoo, wider, and which slices of its blocks' tensors go together."""

    name: str
    rows: Rows

    @property
    def architecture(self) -> str:
        return zoo.ARCHITECTURES[self.name].model

    @property
    def cls(self) -> Any:
        return zoo.ARCHITECTURES[self.name].cls

    @property
    def channels(self) -> int:
        return next(_size(layout) for _, _, layout in self.rows if "channels" in families(layout))

    def config(self) -> Any:
        return zoo.ARCHITECTURES[self.name].configuration(SIZE, **CHANGES.get(self.name, {}))

    def block_of(self, tensor: str) -> tuple[int, str] | None:
        """(layer, name inside the block); None outside of blocks."""
        for pattern in zoo.ARCHITECTURES[self.name].blocks.split():
            if found := re.match(re.escape(pattern).replace(r"\{\}", r"\d+") + r"\.", tensor):
                return int(re.findall(r"\d+", found[0])[0]), tensor[found.end() :]
        return None

    def model(self) -> nn.Module:
        """Random weights big enough that a wrong slice shows."""
        torch.manual_seed(0)
        model = self.cls(self.config()).eval()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.2)
        return model


CASES = {name: Case(name, ROWS[name]) for name in zoo.MODELS if name in ROWS}


def cut(case: Case, model: nn.Module, kept: Callable[[int], Mapping[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """State dict without the slices that `kept(layer)` drops; in `model` their contribution becomes zero."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rows = {name.lstrip("<"): (name[0] == "<", dim, layout) for name, dim, layout in case.rows}
    for name, tensor in model.state_dict().items():
        if (place := case.block_of(name)) is None or place[1] not in rows:
            continue
        consumer, dim, layout = rows[place[1]]
        mask = torch.from_numpy(keep_mask(layout, kept(place[0])))
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
    ids = torch.randint(3, zoo.VOCABULARY, (2, 13), generator=torch.Generator().manual_seed(1))
    more = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}  # pyright: ignore
    with torch.no_grad():
        return model(input_ids=ids, **more).logits
