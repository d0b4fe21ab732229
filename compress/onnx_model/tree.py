"""Where weights have their place in a tree of modules, under names that the file's tell."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from compress.onnx_model.blocks import Block


class Stored(nn.Module):
    """Holds parameters that are no layer's, and modules."""

    def forward(self, name: str) -> Tensor:
        """The parameter of that name: called for, so that whoever loads weights as modules are called loads it."""
        return getattr(self, name)


HOLDERS = (Stored, Block, nn.ModuleList)


class Tree:
    """Fills `root` with modules."""

    def __init__(self, root: nn.Module) -> None:
        self.root = root

    def add_blocks(self, blocks: Iterable[Block]) -> None:
        """Give the blocks of one list their places."""
        lists: dict[str, list[Block]] = {}
        for block in blocks:
            lists.setdefault(block.stretch.name.rpartition(".")[0], []).append(block)
        for name, members in lists.items():
            parent, _, own = name.rpartition(".")
            self._holder(parent).add_module(own, nn.ModuleList(members))

    def add(self, module: nn.Module, wanted: Iterable[str]) -> str:
        """Put a module under the first of the names that is free, or the first one with a number; returns it."""
        names = list(wanted)
        free = next((name for name in names if self._free(name)), None)
        number = 2
        while free is None:
            free, number = (name if self._free(name := f"{names[0]}_{number}") else None), number + 1
        parent, _, own = free.rpartition(".")
        self._holder(parent).add_module(own, module)
        return free

    def store(self, name: str, tensor: nn.Parameter) -> str:
        """Put a parameter under its name, or what is nearest to it and free; returns it."""
        parent, _, own = name.rpartition(".")
        while not self._may_hold(parent):
            parent += "_"
        holder = self._holder(parent)
        while hasattr(holder, own):
            own += "_"
        holder.register_parameter(own, tensor)
        return f"{parent}.{own}".lstrip(".")

    def _free(self, name: str) -> bool:
        parent, _, own = name.rpartition(".")
        return self._may_hold(parent) and not hasattr(self._at(parent) or nn.Module(), own)

    def _may_hold(self, name: str) -> bool:
        """Whether all on the way to a place hold modules, or are not there yet."""
        place = self.root
        for part in filter(None, name.split(".")):
            found = place._modules.get(part)
            if found is None:
                return not isinstance(place, nn.ModuleList)
            if not isinstance(found, HOLDERS):
                return False
            place = found
        return not isinstance(place, nn.ModuleList)

    def _at(self, name: str) -> nn.Module | None:
        place: nn.Module | None = self.root
        for part in filter(None, name.split(".")):
            place = None if place is None else place._modules.get(part)
        return place

    def _holder(self, name: str) -> nn.Module:
        place = self.root
        for part in filter(None, name.split(".")):
            if part not in place._modules:
                place.add_module(part, Stored())
            found = place._modules[part]
            assert found is not None
            place = found
        return place
