"""Which kind of inputs a model reads."""

from __future__ import annotations

from typing import Any

from torch import nn

from compress.errors import ModelError
from compress.inputs.ask import main_input
from compress.inputs.given import declared
from compress.inputs.kind import Inputs
from compress.registry import inputs


def inputs_of(model: nn.Module, config: Any | None = None) -> Inputs:
    """What `model` reads: what was declared of it, else by the first registered kind that fits it; `config` is the
    model's own by default.

    Kinds of other packages are asked before this one's, so that they can take over models that it would misread; each
    in the order of their names. Raises ModelError where none fits.
    """
    if (own := declared(model)) is not None:
        return own
    config = getattr(model, "config", None) if config is None else config
    entries = [inputs.get(name) for name in inputs.names()]
    for entry in sorted(entries, key=lambda entry: entry.target.__module__.startswith(f"{inputs.package}.")):
        kind: Any = entry.target
        if kind.fits(model, config):
            return kind(model, config)
    main = main_input(model) or "input_ids"
    known = " or ".join(inputs.names())
    raise ModelError(
        f"{type(model).__name__} reads {main!r}; models of {known} can be analysed, and others by a kind of inputs "
        "of your own (compress.registry.inputs)"
    )
