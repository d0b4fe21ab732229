"""A LLaVA run layer by layer with plain tensors, one prompt at a time: what rules about visual tokens are checked by.

Nothing of `compress` is used. Tokens of the picture are counted 0 to 35; `live` are those that are left.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import transformers as tf
import vlms
from torch import Tensor
from torch.nn.functional import normalize
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

TOWER, DECODER, N, SIDE = 12, 16, 36, 6


@cache
def deep() -> Any:
    """A LLaVA whose tower has 12 layers and whose decoder has 16, and a copy with eager attention."""
    config = tf.LlavaConfig(
        vision_config=tf.CLIPVisionConfig(**{**vlms.TOWER, "num_hidden_layers": TOWER}),
        text_config=tf.LlamaConfig(**{**vlms.TEXT, "num_hidden_layers": DECODER}),
        image_token_index=vlms.IMAGE,
    )
    model = vlms.lively(tf.LlavaForConditionalGeneration(config))
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    return model, eager


def cosine(these: Tensor, those: Tensor) -> Tensor:
    return normalize(these, dim=-1) @ normalize(those, dim=-1).T


def top(scores: Tensor, count: int) -> list[int]:
    """The numbers of the highest scores."""
    return sorted(scores.topk(count).indices.tolist())


class Hand:
    """One prompt, with one picture. `plan`: layer → what happens before it, which calls `keep`, `merge` or `restore`.

    Of the tower's layers: `tower` attention `[heads, 37, 37]`, `tower_keys` and `tower_values` `[37, heads, size]`; its
    last states `tower_last` `[37, size]`. Of the decoder's layers that ran: `rows` of attention, `logits` before the
    softmax, `keys` `[tokens, heads, size]`, and `moved`, what attention and MLP were given and gave.
    """

    @torch.no_grad()
    def __init__(self, eager: Any, given: dict[str, Tensor]) -> None:
        self.model = eager.model
        tower = self.model.vision_tower
        seen = tower(given["pixel_values"], output_attentions=True, output_hidden_states=True)
        self.tower = [one[0] for one in seen.attentions]
        self.tower_last = seen.last_hidden_state[0]
        self.tower_keys, self.tower_values = [], []
        for layer, states in zip(tower.encoder.layers, seen.hidden_states, strict=False):
            inside = layer.layer_norm1(states[0])
            for found, project in ((self.tower_keys, "k_proj"), (self.tower_values, "v_proj")):
                found.append(getattr(layer.self_attn, project)(inside).view(len(inside), 2, -1))
        self.features = self.model.get_image_features(given["pixel_values"]).pooler_output[0]
        ids = given["input_ids"][0]
        self.picture = (ids == vlms.IMAGE).nonzero()[:, 0]
        self.columns = torch.arange(len(ids))
        self.states = self.model.get_input_embeddings()(ids)
        self.states[self.picture] = self.features
        self.rows, self.logits, self.keys, self.moved = {}, {}, {}, {}
        self.there: dict[int, Tensor] = {}
        self.score: Tensor | None = None

    @property
    def live(self) -> Tensor:
        """The picture's tokens that are left, by number."""
        return self.columns[torch.isin(self.columns, self.picture)] - self.picture[0]

    def at(self, layer: int, columns: Tensor) -> Tensor:
        """Where columns stood in a layer that ran."""
        return torch.searchsorted(self.there[layer], columns)

    @property
    def text(self) -> Tensor:
        """The columns of the text behind the picture."""
        return torch.arange(int(self.picture[-1]) + 1, int(self.columns[-1]) + 1)

    def now(self, columns: Tensor | None = None) -> Tensor:
        """States of columns, by default of what is left of the picture."""
        columns = self.live + self.picture[0] if columns is None else columns
        return self.states[torch.searchsorted(self.columns, columns)]

    def looked(self, layer: int, queries: Tensor, of: dict[int, Tensor] | None = None) -> Tensor:
        """`[heads, queries, n]` of what is left of the picture."""
        rows = (self.rows if of is None else of)[layer]
        return rows[:, self.at(layer, queries)][..., self.at(layer, self.live + self.picture[0])]

    def keep(self, tokens: Any) -> None:
        """Of those left, by number among them."""
        stay = self.live[torch.as_tensor(tokens, dtype=torch.long)] + self.picture[0]
        kept = torch.isin(self.columns, stay) | ~torch.isin(self.columns, self.picture)
        self.columns, self.states = self.columns[kept], self.states[kept]

    def merge(self, members: dict[int, dict[int, float]]) -> None:
        """Token → what it becomes: token → weight, all by number among those left."""
        old = self.now()
        tokens = sorted(members)
        made = [sum(weight * old[one] for one, weight in members[token].items()) for token in tokens]
        stay = self.live[tokens] + self.picture[0]
        self.keep(tokens)
        self.states[torch.isin(self.columns, stay)] = torch.stack(made)  # pyright: ignore

    @torch.no_grad()
    def run(self, plan: dict[int, list[Callable[[Hand], None]]], renumbered: int = DECODER) -> Tensor:
        """The last hidden states, `[left, size]`, after the final norm; positions are counted anew from a layer on."""
        text = self.model.language_model
        for number, layer in enumerate(text.layers):
            for act in plan.get(number, ()):
                act(self)
            self.there[number] = self.columns
            if number == 0:
                self.began = self.states
            places = self.columns if number < renumbered else torch.arange(len(self.columns))
            self.states = self._layer(number, layer, text.rotary_emb(self.states[None], places[None]))
        return text.norm(self.states)

    def _layer(self, number: int, layer: Any, turned: tuple[Tensor, Tensor]) -> Tensor:
        attention, count = layer.self_attn, len(self.columns)
        inside = layer.input_layernorm(self.states)
        heads = [
            project(inside).view(1, count, -1, attention.head_dim).transpose(1, 2)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        ]
        query, key = apply_rotary_pos_emb(heads[0], heads[1], *turned)
        self.keys[number] = key[0].transpose(0, 1)
        key, value = (one[0].repeat_interleave(2, 0) for one in (key, heads[2]))
        logits = query[0] @ key.transpose(1, 2) * attention.scaling
        self.logits[number] = logits.masked_fill(torch.ones(count, count).triu(1).bool(), -1e30)
        self.rows[number] = self.logits[number].softmax(-1)
        given = attention.o_proj((self.rows[number] @ value).transpose(0, 1).reshape(count, -1))
        between = self.states + given
        below = layer.post_attention_layernorm(between)
        gave = layer.mlp(below)
        self.moved[number] = [(inside, given), (below, gave)]
        return between + gave
