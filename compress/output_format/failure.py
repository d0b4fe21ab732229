"""Where a forward fails, and the view that did not fit."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from compress.model.modeling_compress import view_sizes


@dataclass(frozen=True)
class Misfit:
    """A view as these `sizes` in the forward of `module`. `left` are, by the place of a size that could follow its
    input, what that leaves for it."""

    module: str
    sizes: tuple[int, ...]
    left: Mapping[int, int]

    def places(self, parts: Collection[int]) -> list[int]:
        """The places, those first that leave most sizes that axes have (`parts`), then the last ones."""

        def known(place: int) -> int:
            return sum((self.left[place] if i == place else size) in parts for i, size in enumerate(self.sizes))

        return sorted(self.left, key=lambda place: (known(place), place), reverse=True)


class Failing(TorchFunctionMode):
    """Watches one forward: `above` are the modules that run when it fails, the outermost first, and `steps` how many
    functions of torch ran before."""

    def __init__(self) -> None:
        super().__init__()
        self.above: list[str] = []
        self.steps = 0
        self._asked: tuple[Tensor, list[int]] | None = None

    @property
    def view(self) -> Misfit | None:
        """The view that it failed at, if a size of it can follow its input."""
        if self._asked is None or not self.above:
            return None
        given, sizes = self._asked
        rest = {place: prod(sizes) // size for place, size in enumerate(sizes) if size > 1 and -1 not in sizes}
        left = {place: given.numel() // n for place, n in rest.items() if n and given.numel() % n == 0}
        return Misfit(self.above[-1], tuple(sizes), left) if left else None

    @contextmanager
    def watch(self, model: nn.Module) -> Iterator[None]:
        """Know which modules run."""
        handles = []
        for name, part in model.named_modules():
            handles.append(part.register_forward_pre_hook(partial(self._enter, name)))
            handles.append(part.register_forward_hook(self._leave))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.steps += 1
        sizes = view_sizes(func, args, kwargs or {})
        try:
            return func(*args, **(kwargs or {}))
        except RuntimeError:
            self._asked = None if sizes is None else (args[0], sizes)
            raise

    def _enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.above.append(name)

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.above.pop()
