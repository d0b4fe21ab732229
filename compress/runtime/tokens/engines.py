"""What serving engines have of their own that prunes visual tokens as a rule does."""

from __future__ import annotations

from collections.abc import Sequence

from compress.recipe.token_stage import Stage


def engines(stages: Sequence[Stage]) -> list[str]:
    """A sentence for each engine that can do the same, and one where none can."""
    features = [stage for stage in stages if stage.layer == 0]
    if len(features) != len(stages):
        return ["no serving engine drops visual tokens inside of the decoder: there all tokens run"]
    (first, *more) = features
    if not more and not isinstance(first.select, str) and first.select.name == "dpp":
        share = round(100 * (1 - (first.keep or 1)))
        return [f"OpenVINO GenAI does the same where its pruning ratio is set to {share} (CDPruner)"]
    return ["no serving engine has this rule; vLLM's --video-pruning-rate prunes films alone, by their changes"]
