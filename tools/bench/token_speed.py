"""What rules about visual tokens cost and save on a LLaVA of random weights: time of scoring, first token, memory.

python tools/bench/token_speed.py                                # every preset, on shapes of SmolLM2-135M
python tools/bench/token_speed.py --layers 8 fastv visionzip     # a shallower decoder, some presets

A prompt has a picture of 24 × 24 tokens and 64 of text, and a quarter of the visual tokens is kept. "Overhead" is the
processor time inside of the runtime, as a share of the call's own and of the dense model's. "First token" is the call's
processor time, taken in turns with the dense model and with a dense model that is given a picture of as few tokens
(12 × 12); of presets that act inside of the decoder, whose first layers read all tokens, the latter is in brackets.
Memory is the most that the tensors made during a call hold at a time.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest.mock import patch

import torch
from apart import table, verdict
from torch.profiler import ProfilerActivity, profile
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from compress.files.shipped import names
from compress.recipe.tokens import FOLDER, preset
from compress.runtime import attach
from compress.runtime.tokens.expand import expanded
from compress.runtime.tokens.find import places_of
from compress.runtime.tokens.prefill import Prefill

SHAPE: dict[str, Any] = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9}
SHAPE |= {"num_key_value_heads": 3, "vocab_size": 49_153}
IMAGE, TEXT, PATCH = 49_152, 64, 14
KEEP, SIDE, SHORT = 0.25, 24, 12
OVERHEAD, FIRST, MEMORY = 0.05, 1.15, 1.0
"""The targets: share of a call, and ratios to the short and to the dense model."""


def llava(side: int, layers: int) -> LlavaForConditionalGeneration:
    """A model whose pictures have `side` × `side` tokens; its tower is so small that its time hardly counts."""
    tower = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=side * PATCH,
        patch_size=PATCH,
    )
    text = LlamaConfig(num_hidden_layers=layers, **SHAPE)
    config = LlavaConfig(vision_config=tower, text_config=text, image_token_index=IMAGE, vision_feature_layer=-2)
    torch.manual_seed(0)
    return LlavaForConditionalGeneration(config).eval()


def prompt(side: int) -> dict[str, torch.Tensor]:
    """A picture between text."""
    make = torch.Generator().manual_seed(0)
    words = torch.randint(1, 1000, (1, TEXT), generator=make)
    ids = torch.cat([words[:, :8], torch.full((1, side**2), IMAGE), words[:, 8:]], 1)
    pixels = torch.randn(1, 3, side * PATCH, side * PATCH, generator=make)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}


def rules(model: LlavaForConditionalGeneration, name: str) -> dict[str, Any]:
    """The config's key for a preset that keeps a quarter."""
    stages, _ = preset(name).asked
    made = [stage.written() for stage in expanded(stages, KEEP, places_of(model))]
    return {"version": 1, "rules": [{"kind": "tokens", "stages": made}]}


@contextlib.contextmanager
def obeying(model: LlavaForConditionalGeneration, key: dict[str, Any] | None) -> Iterator[None]:
    """The model with rules, or (None) without."""
    if key is None:
        yield
        return
    model.config.compress = key
    try:
        with attach(model):
            yield
    finally:
        del model.config.compress


def called(model: Any, given: dict[str, torch.Tensor]) -> float:
    """Processor seconds to the first token."""
    start = time.process_time()
    with torch.inference_mode():
        model(**given, use_cache=True, logits_to_keep=1)
    return time.process_time() - start


@contextlib.contextmanager
def clocked() -> Iterator[list[float]]:
    """A list that gets the processor seconds of each entry into the runtime."""
    spent: list[float] = []

    def clock(method: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            found = method(*args, **kwargs)
            spent.append(time.process_time() - start)
            return found

        return run

    with contextlib.ExitStack() as stack:
        for name in ("enter", "layer", "leave"):
            stack.enter_context(patch.object(Prefill, name, clock(getattr(Prefill, name))))
        yield spent


def memory(model: Any, given: dict[str, torch.Tensor]) -> int:
    """The most bytes that tensors made during a call hold at a time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        called(model, given)
    held = most = 0
    results: Any = found.profiler
    for event in sorted(results.kineto_results.events(), key=lambda one: one.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def measured(name: str, models: Sequence[Any], rounds: int, most: int) -> list[object]:
    """One row of the table; `most` is the dense model's memory."""
    dense, short = models
    whole, few = prompt(SIDE), prompt(SHORT)
    key = rules(dense, name)
    before = min(stage.get("at", "features") == "features" for stage in key["rules"][0]["stages"])
    times: dict[str, list[float]] = {"rule": [], "dense": [], "short": []}
    shares: list[float] = []
    for number in range(rounds + 1):
        with obeying(dense, key), clocked() as spent:
            pruned = called(dense, whole)
        others = called(dense, whole), called(short, few)
        if number:  # the first warms up
            for kind, seconds in zip(times, (pruned, *others), strict=True):
                times[kind].append(seconds)
            shares.append(sum(spent) / pruned)
    with obeying(dense, key):
        held = memory(dense, whole) / most
    rule, plain, least = (statistics.median(some) for some in times.values())
    overhead = statistics.median(shares)
    ratio = rule / least
    return [
        name,
        f"{100 * overhead:.1f} % ({verdict(overhead, OVERHEAD)})",
        f"{100 * overhead * rule / plain:.1f} %",
        f"{rule / plain:.2f}",
        f"{ratio:.2f} ({verdict(ratio, FIRST)})" if before else f"({ratio:.2f})",
        f"{held:.2f} ({verdict(held, MEMORY)})",
    ]


def main() -> None:
    known = [name.removeprefix(FOLDER) for name in names() if name.startswith(FOLDER)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", default=known)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    models = [llava(side, given.layers) for side in (SIDE, SHORT)]
    models[1].model.language_model = models[0].model.language_model
    models[1].lm_head = models[0].lm_head
    most = memory(models[0], prompt(SIDE))
    head = [
        "preset",
        "overhead",
        "of the dense call",
        "first token, of dense",
        "of the short dense model",
        "memory, of dense",
    ]
    table(head, (measured(name, models, given.rounds, most) for name in given.presets))


if __name__ == "__main__":
    main()
