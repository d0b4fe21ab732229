"""What is found out about a model's inputs by trying, once: that is a forward, and models are asked again and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from compress.inputs.kind import Inputs

Found = TypeVar("Found")
_found: dict[tuple[type, type, str], Any] = {}


def once(inputs: Inputs, find: Callable[[], Found]) -> Found:
    """What `find` returned for the first model of this class and configuration. Raises what it raises."""
    key = type(inputs), type(inputs.model), inputs.config.to_json_string()
    if key not in _found:
        _found[key] = find()
    return _found[key]
