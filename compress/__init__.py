"""A static model-compression toolkit: one recipe in, a smaller checkpoint out that other software opens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compress.version import __version__ as __version__

if TYPE_CHECKING:
    from compress import runtime as runtime
    from compress.api import Options as Options
    from compress.api import Pruned as Pruned
    from compress.api import apply as apply
    from compress.api import auto as auto
    from compress.api import compare as compare
    from compress.api import inspect as inspect
    from compress.api import load as load
    from compress.api import plan as plan
    from compress.api import prune as prune
    from compress.api import run as run

__all__ = ["Options", "Pruned", "apply", "auto", "compare", "inspect", "load", "plan", "prune", "run", "runtime"]


def __getattr__(name: str) -> Any:
    """The functions are imported when one is first asked for: they need torch, which takes seconds."""
    if name not in __all__:
        raise AttributeError(f"module 'compress' has no attribute {name!r}")
    from importlib import import_module

    found = import_module("compress.runtime") if name == "runtime" else getattr(import_module("compress.api"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
