"""Torch-Pruning 1.6.1 on the same tiny model, unassisted: magnitude, half of every width, the head at the end spared.

Its result counts where more than a tenth of the parameters went and the forward still runs; nothing checks that it
computes what it should. Run by the interpreter that `--peer` names, whose environment needs torch, transformers and
torch-pruning.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file

from matrix.given import tensors
from matrix.kind import Entry, Say

FELL = 0.1


def examine(entry: Entry, folder: Path, say: Say) -> None:
    """Prune the dense model in memory."""
    import torch_pruning  # pyright: ignore[reportMissingImports]

    warnings.simplefilter("ignore")
    if not (folder / "given.safetensors").exists():
        say(peer=False, peer_why="no inputs that a stock forward takes are known")
        return
    say(peer=False, peer_why="it did not end")  # unless what follows says otherwise
    inputs = load_file(folder / "given.safetensors")
    model: Any = getattr(transformers, entry.cls).from_pretrained(folder / "dense", dtype=torch.float32).eval()
    for module in model.modules():  # with caches in the output its search does not end
        if getattr(getattr(module, "config", None), "use_cache", False):
            module.config.use_cache = False
    before = sum(parameter.numel() for parameter in model.parameters())
    heads = [getattr(model, name, None) for name in ("lm_head", "classifier", "score")]
    start = time.perf_counter()
    try:
        pruner = torch_pruning.pruner.BasePruner(
            model,
            example_inputs=inputs,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=0.5,
            ignored_layers=[head for head in heads if head is not None],
            output_transform=lambda output: sum(x.sum() for x in tensors(output).values()),
        )
        seconds = round(time.perf_counter() - start, 3)
        pruner.step()
        fell = 1 - sum(parameter.numel() for parameter in model.parameters()) / before
        with torch.no_grad():
            runs = bool(tensors(model(**inputs)))
    except Exception as error:  # another package's
        say(peer_why=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        return
    say(peer=runs and fell > FELL, peer_fell=round(fell, 3), peer_seconds=seconds, peer_why="hardly anything fell")
