"""A model's forward, asked for what a task or metric reads."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn


def asked(model: nn.Module, asks: Mapping[str, Any]) -> Callable[..., Any]:
    """The forward of `model` with the options `asks`, and without a key/value cache, which it would fill for nothing
    unless it is asked for.

    Options that the forward does not know are not given: what they ask for is there anyway, or the reader says that it
    is missing.
    """
    taken = inspect.signature(model.forward).parameters
    anything = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in taken.values())
    more = {name: value for name, value in asks.items() if anything or name in taken}
    if getattr(getattr(model, "config", None), "use_cache", None) and "use_cache" not in more:
        more["use_cache"] = False
    return partial(model, **more)
