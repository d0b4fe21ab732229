"""Tiny random models of every architecture that is tested, as stock transformers saves them."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, MIXTURES, MODELS, TINY, Architecture, Size
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from compress.checkpoint.open import Checkpoint, open_checkpoint
from compress.graph.families import Graph

__all__ = ["ARCHITECTURES", "MIXTURES", "MODELS", "TINY", "VOCABULARY", "Architecture", "Size"]

VOCABULARY = TINY.vocabulary


def save(name: str, folder: Path, **changes: Any) -> Checkpoint:
    """A random model of the architecture, saved and opened; `changes` are of its configuration."""
    made = _made(name, tuple(sorted(changes.items(), key=repr)))
    shutil.copytree(made, folder, copy_function=shutil.copy, dirs_exist_ok=True)
    return open_checkpoint(folder)


@cache
def _made(name: str, changes: tuple[tuple[str, Any], ...]) -> Path:
    """The folder that copies are made of: building a model takes forty times as long as copying one."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = ARCHITECTURES[name]
        model = found.cls(found.configuration(**dict(changes)))
        _roughen(model)
        folder = _shelf() / f"{name}-{len(list(_shelf().iterdir()))}"
        model.save_pretrained(folder)
    return folder


@cache
def _shelf() -> Path:
    folder = tempfile.mkdtemp(prefix="compress-zoo-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _roughen(model: nn.Module) -> None:
    """Biases and gains are constant at the start, and would hide mistakes; routers get clear preferences."""
    seen = set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() in seen or "inv_freq" in name:
            continue
        seen.add(tensor.data_ptr())
        if tensor.dim() == 1:
            tensor += 0.1 * torch.randn_like(tensor)
        if name.endswith(("gate.weight", "router.weight")):
            tensor += torch.randn_like(tensor)


def stock(name: str, folder: Path) -> Any:
    """The saved model as stock transformers loads it; nothing in the file may be missing or left over."""
    model, said = ARCHITECTURES[name].cls.from_pretrained(folder, output_loading_info=True)
    assert not any(said.values()), said
    return model.eval()


def graph(name: str) -> Graph:
    """A graph that knows the blocks only."""
    pattern = ARCHITECTURES[name].blocks
    names = dict.fromkeys(part.format(i) for part in pattern.split() for i in range(TINY.layers))
    return Graph(layouts={}, families={}, blocks=tuple(names), works=())


def batches(name: str, rows: tuple[int, ...] = (2, 2, 2), length: int = 12) -> list[dict[str, Tensor]]:
    """Random tokens, with what else the architecture's forward and loss take."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for count in rows:
        ids = torch.randint(3, VOCABULARY, (count, length), generator=generator)
        more = {}
        if name == "t5" or "MaskedLM" in ARCHITECTURES[name].model:
            more["labels"] = ids.flip(1)
        if name == "t5":
            more["decoder_input_ids"] = ids.roll(1, 1)
        found.append({"input_ids": ids, **more})
    return found


def few(names: Iterable[str], quick: Collection[str] = ("llama", "gpt2", "bert")) -> list[Any]:
    """Parameters of a test: all the names, but in the quick lane only these few."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


def projections(model: nn.Module, blocks: tuple[str, ...]) -> set[str]:
    """Weights of the plain projections inside the blocks."""
    return {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and name.startswith(tuple(f"{block}." for block in blocks))
    }
