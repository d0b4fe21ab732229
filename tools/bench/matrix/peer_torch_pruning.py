"""Torch-Pruning 1.6.1 on the same model, unassisted: magnitude, half of every width, the head at the end spared.

Its result counts where more than a tenth of the parameters went and the forward still runs; nothing checks that it
computes what it should. Run by the interpreter that `--peer` names, whose environment needs torch-pruning and what
builds the models.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from matrix.given import tensors
from matrix.kind import Entry, Say

FELL = 0.1
HEADS = ("lm_head", "classifier", "score", "head", "fc")
"""Where models have what classifies."""


def examine(entry: Entry, folder: Path, say: Say) -> None:
    """Prune the dense transformers model in memory."""
    import transformers

    if not (folder / "given.safetensors").exists():
        say(peer=False, peer_why="no inputs that a stock forward takes are known")
        return
    say(peer=False, peer_why="it did not end")  # unless what follows says otherwise
    inputs = load_file(folder / "given.safetensors")
    model: Any = getattr(transformers, entry.cls).from_pretrained(folder / "dense", dtype=torch.float32).eval()
    for module in model.modules():  # with caches in the output its search does not end
        if getattr(getattr(module, "config", None), "use_cache", False):
            module.config.use_cache = False
    heads = [head for name in HEADS[:3] if (head := getattr(model, name, None)) is not None]
    _prune(model, inputs, heads, lambda: tensors(model(**inputs)), tensors, say)


def examine_module(entry: Entry, folder: Path, say: Say) -> None:
    """Prune the dense model of a library in memory."""
    from matrix.answers import answers, named
    from matrix.listed import line_of

    if not (folder / "dense.safetensors").exists():
        say(peer=False, peer_why="it could not be built")
        return
    say(peer=False, peer_why="it did not end")  # unless what follows says otherwise
    model, x = line_of(entry).module(), load_file(folder / "given.safetensors")["x"]
    model.load_state_dict(load_file(folder / "dense.safetensors"))
    last = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1:]
    heads = [head for name in HEADS if (head := getattr(model, name, None)) is not None]
    _prune(model, x, heads or last, lambda: answers(model, x), named, say)


def _prune(
    model: nn.Module,
    inputs: Any,
    heads: list[Any],
    run: Callable[[], dict[str, Tensor]],
    named: Callable[[Any], dict[str, Tensor]],
    say: Say,
) -> None:
    import torch_pruning  # pyright: ignore[reportMissingImports]

    warnings.simplefilter("ignore")
    before = sum(parameter.numel() for parameter in model.parameters())
    start = time.perf_counter()
    try:
        pruner = torch_pruning.pruner.BasePruner(
            model,
            example_inputs=inputs,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=0.5,
            ignored_layers=heads,
            output_transform=lambda output: sum(x.sum() for x in named(output).values()),
        )
        seconds = round(time.perf_counter() - start, 3)
        pruner.step()
        fell = 1 - sum(parameter.numel() for parameter in model.parameters()) / before
        with torch.no_grad():
            runs = bool(run())
    except Exception as error:  # another package's
        say(peer_why=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        return
    say(peer=runs and fell > FELL, peer_fell=round(fell, 3), peer_seconds=seconds, peer_why="hardly anything fell")
