"""Deciding and cutting 50 % of heads and channels in memory, against Torch-Pruning, in turns in one process.

    pip install --no-deps torch-pruning==1.6.1
    python tools/bench/versus_torch_pruning.py [turns]

A Llama of TinyLlama-1.1B's shape with random float32 weights; magnitude, the same share in every layer. Both sides
start from the weights in memory and end with all tensors cut; no file is read or written. Under grouped queries
Torch-Pruning removes query heads and keeps the key/value heads, we remove whole groups, so we cut more. It is told
where the heads are and not to use the cache, without which its search does not end. In the row "and hidden" the
residual stream is halved too, Torch-Pruning's own default.
"""

from __future__ import annotations

import copy
import gc
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from apart import median, table, verdict
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from compress.allocate.spend import allocate
from compress.graph.trace import trace
from compress.inputs.choose import inputs_of
from compress.model.build import empty_model
from compress.registry import allocators, criteria
from compress.score.score import score
from compress.surgery.take import take

CONFIG = LlamaConfig(
    vocab_size=32000,
    hidden_size=2048,
    intermediate_size=5632,
    num_hidden_layers=22,
    num_attention_heads=32,
    num_key_value_heads=4,
    architectures=["LlamaForCausalLM"],
)
SHARE = 0.5


def model() -> LlamaForCausalLM:
    """Random weights, in seconds."""
    torch.manual_seed(0)
    with torch.device("meta"):
        empty = LlamaForCausalLM(CONFIG)
    pool = torch.randn(1 << 24) * 0.02
    state = {}
    for number, (name, tensor) in enumerate(empty.state_dict().items()):
        state[name] = torch.empty(tensor.shape)
        for piece in state[name].view(-1).split(1 << 23):
            start = number * 1009 % (1 << 23)
            piece.copy_(pool[start : start + len(piece)])
    small = copy.deepcopy(CONFIG)
    small.num_hidden_layers = 1
    empty.load_state_dict(state, assign=True)
    # Rotary frequencies are in no state; those of a smaller model are the same.
    empty.model.rotary_emb = LlamaForCausalLM(small).model.rotary_emb
    return empty.eval()


def traced() -> Any:
    """The graph of the model that is pruned."""
    model = empty_model(CONFIG, LlamaForCausalLM)
    return trace(model, inputs_of(model).example())


def ours(dense: Any, hidden: bool) -> tuple[dict[str, float], int]:
    """Seconds by phase, and parameters left."""
    state = dense.state_dict()
    clock = Clock()
    graph = traced()
    clock.tick("graph")
    cut: dict[str, Tensor] = {}
    families = graph.of_kind("heads", "channels", *(["hidden"] if hidden else []))
    magnitude, uniform = criteria.get("magnitude"), allocators.get("uniform")
    scores = score(graph, families, magnitude, {}, state.__getitem__, arguments={"norm": "l2"})
    clock.tick("score")
    kept = {}
    for kinds in (("heads",), ("channels",), ("hidden",)):  # half of each, as the other side does
        some = [family for family in families if family.kind in kinds]
        if some:
            kept |= allocate(graph, some, scores, allocator=uniform, remove=SHARE)
    clock.tick("allocate")
    for name in graph.layouts:
        tensor = state[name]
        for dim, mask in graph.masks(name, kept).items():
            tensor = take(tensor, dim, np.flatnonzero(mask))
        cut[name] = tensor
    clock.tick("cut")
    left = sum(tensor.numel() for tensor in cut.values())
    assert left == graph.parameters(kept)
    return clock.phases, left


def theirs(dense: Any, hidden: bool) -> tuple[dict[str, float], int]:
    """Seconds by phase, and parameters left; `dense` is pruned in place."""
    import torch_pruning  # pyright: ignore[reportMissingImports]

    dense.config.use_cache = False
    heads: dict[Any, int] = {}
    ends: list[Any] = [dense.lm_head]
    for layer in dense.model.layers:
        attention = layer.self_attn
        heads |= {attention.q_proj: 32, attention.k_proj: 4, attention.v_proj: 4}
        if not hidden:
            ends += [attention.o_proj, layer.mlp.down_proj]
    inputs = torch.randint(0, 100, (1, 8))
    clock = Clock()
    pruner = torch_pruning.pruner.BasePruner(
        dense,
        example_inputs=inputs,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=SHARE,
        ignored_layers=ends,
        num_heads=heads,
        prune_num_heads=True,
        prune_head_dims=False,
        head_pruning_ratio=SHARE,
        output_transform=lambda output: output.logits,
    )
    clock.tick("graph")
    pruner.step()
    clock.tick("score and cut")
    return clock.phases, sum(parameter.numel() for parameter in dense.parameters())


class Clock:
    def __init__(self) -> None:
        self.phases: dict[str, float] = {}
        self._last = time.perf_counter()

    def tick(self, phase: str) -> None:
        now = time.perf_counter()
        self.phases[phase], self._last = now - self._last, now


def main(turns: int) -> None:
    rows = []
    warnings.simplefilter("ignore")
    with torch.no_grad():
        traced()  # imports, both sides have had theirs
    for hidden in (False, True):
        sides: dict[Callable, list[tuple[dict[str, float], int]]] = {theirs: [], ours: []}
        for _ in range(turns):
            for side, found in sides.items():
                found.append(side(model(), hidden))
                gc.collect()  # Torch-Pruning's graph holds its model in cycles
        totals = {side: median(sum(phases.values()) for phases, _ in found) for side, found in sides.items()}
        shown = []
        for side, found in sides.items():
            phases = {phase: median(run[0][phase] for run in found) for phase in found[0][0]}
            each = ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in phases.items())
            shown.append(f"{totals[side]:.2f} s ({each}); {found[0][1] / 1e6:.0f} M left")
        ratio = totals[ours] / totals[theirs]
        what = "heads, channels" + (", and hidden" if hidden else "")
        rows.append([what, *shown, f"{ratio:.2f} ({verdict(ratio, 0.3)})"])
    table(["50 % of", "Torch-Pruning 1.6.1", "compress", "ratio"], rows)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
