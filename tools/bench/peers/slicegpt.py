"""SliceGPT's principal components of the residual stream (Ashkboos et al., arXiv 2401.15024), written anew for a Llama.

After the gains of the norms are folded into what reads them, the residual stream may be rotated between any two parts
of a block: Q of each place are the eigenvectors of its signals' covariance, and the directions of least variance are
cut off. Where two places meet, the residual stream passes through Q₁ᵀQ₂, which is stored. Every place sees what the
pruned model before it computes, as in the authors' sequential form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

DAMPING = 0.01
"""Of the mean variance, as the authors add it to the covariance."""


class Norm(nn.Module):
    """RMSNorm without gain, over as many dimensions as there were before slicing."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.width, self.epsilon = width, epsilon

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, seq, hidden]`."""
        return x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) / self.width + self.epsilon)


class Sliced(nn.Module):
    """A decoder layer whose residual stream goes from one basis to the next beside attention and MLP."""

    def __init__(self, layer: Any, norm: Norm) -> None:
        super().__init__()
        self.attention, self.mlp, self.norm = layer.self_attn, layer.mlp, norm
        self.beside_attention: nn.Parameter | None = None
        self.beside_mlp: nn.Parameter | None = None

    def attend(self, hidden: Tensor, **given: Any) -> Tensor:
        """What attention adds to the residual stream, in the basis of `o_proj`."""
        return self.attention(hidden_states=self.norm(hidden), **given)[0]

    def forward(self, hidden_states: Tensor, **given: Any) -> Tensor:
        assert self.beside_attention is not None and self.beside_mlp is not None
        hidden = hidden_states @ self.beside_attention + self.attend(hidden_states, **given)
        return hidden @ self.beside_mlp + self.mlp(self.norm(hidden))


def width_for(model: LlamaForCausalLM, share: float) -> int:
    """The width of the residual stream at which the blocks have lost `share` of their parameters, the two matrices that
    each keeps beside its parts counted."""
    layer: Any = model.model.layers[0]
    matrices = sum(one.numel() for one in layer.parameters() if one.dim() == 2)
    hidden = model.config.hidden_size
    fits = [d for d in range(8, hidden + 1, 8) if matrices * d / hidden + 2 * d * d <= (1 - share) * matrices]
    return max(fits)


@torch.no_grad()
def prune(model: LlamaForCausalLM, rows: Sequence[Tensor], share: float) -> None:
    """Slice `model` in place, `rows` being `[batch, length]` tokens; embedding and head are sliced with the rest."""
    config, base = model.config, model.model
    kept = width_for(model, share)
    norm = Norm(config.hidden_size, config.rms_norm_eps)
    _fold(model)
    given = _given(model, rows)
    hidden = [base.embed_tokens(batch) for batch in rows]
    basis = components(hidden)[:, :kept]
    base.embed_tokens.weight = nn.Parameter(base.embed_tokens.weight @ basis)
    hidden = [batch @ basis for batch in hidden]
    for number, layer in enumerate(base.layers):
        sliced = Sliced(layer, norm)
        for reads in (sliced.attention.q_proj, sliced.attention.k_proj, sliced.attention.v_proj):
            reads.weight = nn.Parameter(reads.weight @ basis)
        wide = [h @ basis.T + sliced.attend(h, **some) for h, some in zip(hidden, given, strict=True)]
        after = components(wide)[:, :kept]
        sliced.beside_attention = nn.Parameter(basis.T @ after)
        sliced.attention.o_proj.weight = nn.Parameter(after.T @ sliced.attention.o_proj.weight)
        hidden, basis = [h @ after for h in wide], after
        for reads in (sliced.mlp.gate_proj, sliced.mlp.up_proj):
            reads.weight = nn.Parameter(reads.weight @ basis)
        wide = [h @ basis.T + sliced.mlp(norm(h)) for h in hidden]
        after = components(wide)[:, :kept]
        sliced.beside_mlp = nn.Parameter(basis.T @ after)
        sliced.mlp.down_proj.weight = nn.Parameter(after.T @ sliced.mlp.down_proj.weight)
        hidden, basis = [h @ after for h in wide], after
        base.layers[number] = sliced
    base.norm = norm  # pyright: ignore[reportAttributeAccessIssue]
    model.lm_head.weight = nn.Parameter(model.lm_head.weight @ basis)


def components(signals: Sequence[Tensor]) -> Tensor:
    """Orthogonal `[hidden, hidden]`, the directions of most variance first, of signals `[batch, seq, hidden]`."""
    total = sum((x.flatten(0, 1).double().T @ x.flatten(0, 1).double() for x in signals), torch.tensor(0.0))
    total = total + torch.eye(len(total)) * DAMPING * total.diagonal().mean()
    return torch.linalg.eigh(total).eigenvectors.flip(1).float()


def _fold(model: LlamaForCausalLM) -> None:
    """Gains of norms into the matrices that read them; the head becomes a matrix of its own."""
    model.lm_head.weight = nn.Parameter(model.lm_head.weight * model.model.norm.weight)
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for reads in (attention.q_proj, attention.k_proj, attention.v_proj):
            reads.weight.mul_(layer.input_layernorm.weight)
        for reads in (mlp.gate_proj, mlp.up_proj):
            reads.weight.mul_(layer.post_attention_layernorm.weight)


def _given(model: LlamaForCausalLM, rows: Sequence[Tensor]) -> list[dict[str, Any]]:
    """What the model hands to every layer beside the hidden states."""
    found: list[dict[str, Any]] = []

    class Seen(Exception):
        pass

    def see(_: nn.Module, __: Any, given: dict[str, Any]) -> None:
        found.append({name: value for name, value in given.items() if name != "hidden_states"})
        raise Seen

    hook = model.model.layers[0].register_forward_pre_hook(see, with_kwargs=True)
    for batch in rows:
        try:
            model(batch, use_cache=False)
        except Seen:
            continue
    hook.remove()
    return found
