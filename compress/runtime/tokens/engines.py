"""What serving engines have of their own that prunes visual tokens as a rule does."""

from __future__ import annotations

from collections.abc import Sequence

from compress.recipe.token_stage import Stage

FILMS = (
    "vLLM (--video-pruning-rate, --video-retention-ratio) and SGLang (video_pruning_rate in config.json) prune films "
    "alone"
)


def engines(stages: Sequence[Stage]) -> list[str]:
    """Sentences for the report: which flags of which engine do the same, and what none of them does."""
    if any(stage.layer for stage in stages):
        return [f"no serving engine drops visual tokens inside of the decoder; {FILMS}"]
    first = stages[0]
    name, share = (first.select if isinstance(first.select, str) else first.select.name), round(100 * (first.keep or 0))
    if len(stages) == 1 and name == "dpp":
        return [f"the same in OpenVINO GenAI: pruning_ratio={100 - share} of its generation config (CDPruner); {FILMS}"]
    if len(stages) == 1 and name == "pivots":
        return [f"the same in TensorRT Edge-LLM: --visualPrune (DART), to keep {share} %; {FILMS}"]
    return [f"no serving engine has this rule; {FILMS}"]
