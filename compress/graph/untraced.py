"""What of a model the recorded forward did not run: nothing is known of which widths it takes from the rest."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from inspect import signature

from torch import Tensor, nn

from compress.graph.record import Recorder


def untraced(recorder: Recorder, stored: Mapping[str, Tensor]) -> dict[str, str]:
    """Stored tensor that no operator read → the largest module of which nothing ran (itself, where its module did).

    The inputs of a trace need not reach all of a model: tokens alone do not run a vision tower.
    """
    ran = {module for name, t in stored.items() if id(t) in recorder.read for module in _holders(name)}
    counters = {name for name, t in stored.items() if t.dim() == 0 and not t.is_floating_point()}  # batches seen
    unread = (name for name, t in stored.items() if id(t) not in recorder.read and name not in counters)
    return {name: next((module for module in _holders(name) if module not in ran), name) for name in unread}


def listed(modules: Iterable[str]) -> str:
    """Modules, each once, in words; three and more by the first of them."""
    first, *others = dict.fromkeys(modules)
    if len(others) < 2:
        return " and ".join([first, *others])
    return f"{first} and {len(others)} more modules"


def own_reason(modules: Iterable[str]) -> str:
    """Why what lies in these modules is pinned."""
    return f"the trace did not run {listed(modules)}"


def span_reason(modules: Iterable[str]) -> str:
    """Why what these modules may take its width from is pinned."""
    return f"it may span {listed(modules)}, which the trace did not run"


def spanning(idle: Mapping[str, str], stored: Mapping[str, Tensor], sizes: Collection[int]) -> list[str]:
    """Modules of `idle` that may take a width from an axis; `sizes` are the axis's own and those of the stored
    dimensions that it lies in.

    Of a module nothing is known. A vector alone, whose module ran without it (what stands for masked frames), runs
    along a dimension of as many numbers.
    """
    return [
        module
        for tensor, module in idle.items()
        if module != tensor or stored[tensor].numel() != max(stored[tensor].shape) or stored[tensor].numel() in sizes
    ]


def map_readers(idle: Mapping[str, str], stored: Mapping[str, Tensor], maps: int) -> list[str]:
    """Modules of `idle` with one input per attention map of the model, as ESM's contact head has: maps leave blocks."""
    widths: dict[str, set[int]] = {}
    for tensor, module in idle.items():
        widths.setdefault(module, set()).update(stored[tensor].shape)
    matrices = {module for tensor, module in idle.items() if stored[tensor].dim() == 2}
    return [module for module, sizes in widths.items() if module in matrices and sizes - {1} == {maps}]


def fed_by(model: nn.Module, stack: str, idle: Mapping[str, str]) -> list[str]:
    """Modules of `idle` whose results go to the blocks of a list by number, told by what the list's owner takes.

    Qwen3-VL's text model is given `deepstack_visual_embeds` of `model.visual`, one for each of its first blocks.
    """
    owner = model.get_submodule(stack.rpartition(".")[0])
    taken = set(signature(owner.forward).parameters)
    return [
        module for module in dict.fromkeys(idle.values()) if any(module.rpartition(".")[2] in name for name in taken)
    ]


def _holders(name: str) -> list[str]:
    """The modules that hold a tensor, the largest first."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]
