"""The dependency graph of a model of 1.1 billion parameters, its construction included, beside Torch-Pruning's.

    pip install torch-pruning==1.6.1   # in an environment of its own
    python tools/bench/graph_peer.py [turns]

Both start from the configuration of TinyLlama-1.1B and end with a graph that groups can be asked of, each turn in a
process of its own. We build the model on meta, as its weights are not needed; Torch-Pruning runs the model, so it needs
them, here uninitialised. Seconds and peak memory are those without and with what importing takes.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from typing import Any

from apart import median, part, table, verdict

TINY_LLAMA = {
    "vocab_size": 32000,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "use_cache": False,
}


def ours() -> dict[str, Any]:
    """Seconds and families of our graph."""
    from transformers import LlamaConfig

    from compress.evaluate.size import peak_memory
    from compress.graph.trace import trace
    from compress.inputs.choose import inputs_of
    from compress.model.build import empty_model

    config = LlamaConfig(**TINY_LLAMA)
    start = time.perf_counter()
    model = empty_model(config)
    graph = trace(model, inputs_of(model).example())
    return {"seconds": time.perf_counter() - start, "groups": len(graph.families), "peak": peak_memory()}


def peer() -> dict[str, Any]:
    """Seconds and groups of Torch-Pruning's."""
    import torch
    import torch_pruning  # pyright: ignore[reportMissingImports]
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.initialization import no_init_weights

    from compress.evaluate.size import peak_memory

    warnings.simplefilter("ignore")
    config = LlamaConfig(**TINY_LLAMA)
    start = time.perf_counter()
    with no_init_weights():
        model = LlamaForCausalLM(config).eval()
    for parameter in model.parameters():
        parameter.data.fill_(0.01)  # pages that nobody has written to take no memory
    graph: Any = torch_pruning.DependencyGraph().build_dependency(model, torch.zeros(1, 8, dtype=torch.long))
    groups = sum(1 for _ in graph.get_all_groups(ignored_layers=[model.lm_head]))
    return {"seconds": time.perf_counter() - start, "groups": groups, "peak": peak_memory()}


def main(turns: int) -> None:
    found: dict[str, list[tuple[float, float]]] = {"ours": [], "peer": []}
    for _ in range(turns):
        for side in found:
            told, process = part(__file__, side)
            found[side].append((told["seconds"], max(told["peak"], process.peak) / 1e9))
    mine, other = ([median(column) for column in zip(*found[side], strict=True)] for side in ("ours", "peer"))
    rows = [
        [
            "seconds",
            f"{mine[0]:.2f}",
            f"{other[0]:.2f}",
            f"{mine[0] / other[0]:.2f} × ({verdict(mine[0] / other[0], 0.2)})",
        ],
        [
            "peak GB",
            f"{mine[1]:.2f}",
            f"{other[1]:.2f}",
            f"{mine[1] / other[1]:.2f} × ({verdict(mine[1] / other[1], 0.2)})",
        ],
    ]
    table([f"median of {turns}", "compress", "Torch-Pruning", "ratio"], rows)


if __name__ == "__main__":
    if sys.argv[1:2] in (["ours"], ["peer"]):
        print(json.dumps({"ours": ours, "peer": peer}[sys.argv[1]]()))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 3)
