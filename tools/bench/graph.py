"""Time and memory of the dependency graph of models that no machine here could hold.

python tools/bench/graph.py
"""

from __future__ import annotations

import json
import sys
import time

from apart import part, table, verdict

LLAMA_70B = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
DEEPSEEK_V3 = {
    "model_type": "deepseek_v3",
    "architectures": ["DeepseekV3ForCausalLM"],
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "num_hidden_layers": 61,
    "first_k_dense_replace": 3,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "n_group": 8,
    "topk_group": 4,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "vocab_size": 129280,
}
CONFIGS = {"Llama-70B": LLAMA_70B, "DeepSeek-V3": DEEPSEEK_V3}


def measure(name: str) -> dict:
    """Build on meta and trace one of CONFIGS; seconds without and peak bytes with what importing takes."""
    from transformers import AutoConfig

    from compress.evaluate.size import peak_memory
    from compress.graph.trace import trace
    from compress.inputs.choose import inputs_of
    from compress.model.build import empty_model

    raw = dict(CONFIGS[name])
    config = AutoConfig.for_model(raw.pop("model_type"), **raw)
    start = time.perf_counter()
    model = empty_model(config)
    built = time.perf_counter()
    graph = trace(model, inputs_of(model).example())
    done = time.perf_counter()
    free = [family for family in graph.families.values() if family.pinned is None]
    return {
        "build": built - start,
        "trace": done - built,
        "peak": peak_memory(),
        "parameters": graph.parameters(),
        "families": len(free),
        "groups": sum(family.size for family in free),
    }


def main() -> None:
    rows = []
    for name in CONFIGS:
        found, process = part(__file__, name)
        seconds, peak = found["build"] + found["trace"], max(found["peak"], process.peak) / 1e9
        rows.append(
            [
                name,
                f"{found['parameters'] / 1e9:.0f} B",
                found["families"],
                f"{found['groups']:,}",
                f"{found['build']:.2f} s",
                f"{found['trace']:.2f} s",
                f"{seconds:.2f} s ({verdict(seconds, 5)})",
                f"{peak:.2f} GB ({verdict(peak, 1)})",
            ]
        )
    table(["configuration", "parameters", "families", "groups", "build", "graph", "both", "peak RSS"], rows)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
    else:
        main()
