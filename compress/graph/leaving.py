"""What modules return while a model runs: an axis that none of it has is used up inside of the module."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from itertools import takewhile
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from compress.graph.axes import Node, leaves
from compress.graph.record import Recorder


class Leaving:
    """The tensors that each module of a model returned."""

    def __init__(self, model: nn.Module, recorder: Recorder) -> None:
        self._model, self._recorder = model, recorder
        self._returned: dict[str, list[Tensor]] = {}
        self._axes: dict[str, set[int]] = {}

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Look at what comes out of every module."""
        handles = [module.register_forward_hook(self._leave(name)) for name, module in self._model.named_modules()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def keeps(self, leaf: Node, tensors: Collection[str], idle: Collection[str]) -> bool:
        """Whether some module holds all these stored `tensors`, none of those that did not run (`idle`), and returned
        nothing that has the axis: then nothing outside of it takes its width from there."""
        parts = zip(*(tensor.split(".")[:-1] for tensor in tensors), strict=False)
        common = [names[0] for names in takewhile(lambda names: len(set(names)) == 1, parts)]
        for end in range(len(common), 0, -1):
            module = ".".join(common[:end])
            if any(tensor.startswith(f"{module}.") for tensor in idle):
                return False  # and so does every larger one
            if module in self._returned and id(leaf) not in self._leaves(module):
                return True
        return False

    def _leaves(self, module: str) -> set[int]:
        """The leaves of all axes that left a module."""
        if module not in self._axes:
            nodes = [node for tensor in self._returned[module] for node in self._recorder.dims(tensor)]
            self._axes[module] = {id(leaf) for node in nodes for leaf in leaves(node)}
        return self._axes[module]

    def _leave(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            self._returned.setdefault(name, []).extend(x for x in tree_leaves(output) if isinstance(x, Tensor))

        return hook
