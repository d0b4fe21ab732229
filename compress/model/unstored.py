"""Parameters that a class computes for itself where no file holds them: tables of positions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from torch import nn

from compress.model.disk_names import find_names

if TYPE_CHECKING:
    from compress.checkpoint.open import Checkpoint


def as_constants(checkpoint: Checkpoint, model: nn.Module) -> None:
    """Make constants of the parameters that `checkpoint` lacks and that the class says may be missing.

    They follow from the config, so no axis of them may lose anything: a smaller table would hold other numbers.
    """
    patterns = getattr(model, "_keys_to_ignore_on_load_missing", None) or ()
    state = model.state_dict(keep_vars=True)
    if not (named := [name for name in state if any(re.search(pattern, name) for pattern in patterns)]):
        return
    tied = {id(state[stored]) for stored in find_names(checkpoint, model, state)}
    for name in named:
        if id(state[name]) not in tied:
            parent, _, own = name.rpartition(".")
            module = model.get_submodule(parent)
            module._parameters.pop(own, None)
            module._buffers.pop(own, None)
            module.register_buffer(own, state[name].data, persistent=False)
