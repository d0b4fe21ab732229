"""Parameters that a class computes for itself where no file holds them: tables of positions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from compress.errors import ModelError
from compress.graph.ends import embeddings
from compress.model.disk_names import find_names

if TYPE_CHECKING:
    from compress.checkpoint.open import Checkpoint


def as_constants(checkpoint: Checkpoint, model: nn.Module) -> list[str]:
    """Make constants of the parameters that `checkpoint` lacks and that the class says may be missing; their names.

    They follow from the config, so no axis of them may lose anything: a smaller table would hold other numbers.
    Embeddings of tokens are learnt, whatever the class says.
    """
    patterns = getattr(model, "_keys_to_ignore_on_load_missing", None) or ()
    state = model.state_dict(keep_vars=True)
    if not (named := [name for name in state if any(re.search(pattern, name) for pattern in patterns)]):
        return []
    held = {id(state[stored]) for stored in find_names(checkpoint, model, state)}
    held |= {id(getattr(embeddings(model, end), "weight", None)) for end in ("input", "output")}
    found = [name for name in named if id(state[name]) not in held]
    for name in found:
        parent, _, own = name.rpartition(".")
        module = model.get_submodule(parent)
        module._parameters.pop(own, None)
        module._buffers.pop(own, None)
        module.register_buffer(own, state[name].data, persistent=False)
    return found


def check_computed(model: nn.Module, names: list[str]) -> None:
    """Raise ModelError for one of these constants that the class would draw at random."""
    initialise: Any = getattr(model, "_init_weights", None)
    for name in names:
        parent, _, own = name.rpartition(".")
        module, before = model.get_submodule(parent), model.get_buffer(name).clone()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1 + torch.initial_seed())
            initialise(module)
        if not torch.equal(before, getattr(module, own)):
            raise ModelError(f"{name} is in no file, and {type(model).__name__} would draw it at random; fetch it")
