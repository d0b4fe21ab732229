"""A static model-compression toolkit: one recipe in, a smaller checkpoint out that other software opens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compress.version import __version__ as __version__

if TYPE_CHECKING:
    from compress.pipeline import Options as Options
    from compress.pipeline import apply as apply
    from compress.pipeline import run as run

__all__ = ["Options", "apply", "run"]


def __getattr__(name: str) -> Any:
    """The pipeline is imported when it is first asked for: it needs torch, which takes seconds."""
    if name in __all__:
        from compress import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module 'compress' has no attribute {name!r}")
