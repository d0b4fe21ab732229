"""Weights put into a model's modules when they run, and taken out again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from compress.checkpoint.converted import with_converted
from compress.checkpoint.open import Checkpoint
from compress.checkpoint.shapes import Wanted, check_shapes
from compress.errors import InputError, ModelError
from compress.model.blocks import wrong_count
from compress.model.build import runnable_model
from compress.model.conversions import find_conversions
from compress.model.disk_names import Piece, find_names, find_pieces, put_together
from compress.model.unstored import as_constants

__all__ = ["Weights", "runnable_model"]

Place = tuple[nn.Module, str]


class Weights:
    """Which stored tensor is which parameter or persistent buffer of `model`, a tree on the meta device.

    Names are those of `model.state_dict()`; a tensor tied under several names goes by the first one. What stock
    transformers compute of stored tensors is in `checkpoint` under its name in the model instead of these. Raises
    ModelError when something the model needs is in no file, or stored in another shape.
    """

    def __init__(self, checkpoint: Checkpoint, model: nn.Module) -> None:
        self.checkpoint, self.model = checkpoint, model
        self._first: dict[str, str] = {}  # every name → the first name of the same tensor
        self._empty: dict[str, Tensor] = {}  # first name → the tensor on meta
        as_constants(checkpoint, model)
        names: dict[int, str] = {}
        for name, tensor in model.state_dict(keep_vars=True).items():
            self._first[name] = names.setdefault(id(tensor), name)
            self._empty.setdefault(self._first[name], tensor)
        self._places: dict[str, list[Place]] = defaultdict(list)
        for name, first in self._first.items():
            parent, _, own = name.rpartition(".")
            self._places[first].append((model.get_submodule(parent), own))
        found = find_names(checkpoint, model, self._first)
        self._disk: dict[str, list[str]] = defaultdict(list)  # first name → every stored tensor it may be read from
        for name, disk in found.items():
            self._disk[self._first[name]].append(disk)
        taken = set(found.values())
        lacking = {name: self._empty[name].shape for name in self._empty if name not in self._disk}
        self._pieces = find_pieces(checkpoint, model, lacking, taken) if lacking else {}
        for name, pieces in self._pieces.items():
            self._disk[name] = [piece.disk for piece in pieces]
            taken.update(self._disk[name])
        if left := {name: tensor for name, tensor in self._empty.items() if name not in self._disk}:
            converted = find_conversions(checkpoint, model, left, taken)
            self.checkpoint = checkpoint = with_converted(checkpoint, converted)
            self._disk |= {name: [name] for name in converted}
            taken.update(converted)
        self.unexpected = [disk for disk in checkpoint.tensors if disk not in taken]
        self.missing = [first for first in self._empty if first not in self._disk]
        self._check()

    def disk_name(self, name: str) -> str | None:
        """The stored tensor behind `name` (the first of several), None when the model has none of that name."""
        first = self._first.get(name)
        return self._disk[first][0] if first is not None else None

    def disk_names(self, name: str) -> list[str]:
        """Every stored tensor that is `name`: under each name of a tie, or the pieces it is put together of."""
        return list(self._disk[self._first[name]])

    def pieces(self, name: str) -> tuple[Piece, ...]:
        """The stored tensors that `name` is put together of; empty where it is stored as one."""
        return self._pieces.get(self._first[name], ())

    def dtype(self, name: str) -> torch.dtype:
        """Of the stored tensor."""
        return self.checkpoint.tensors[self._disk[self._first[name]][0]].dtype

    def first_name(self, name: str) -> str:
        """The name under which a tied tensor is known."""
        return self._first[name]

    def aliases(self, name: str) -> list[str]:
        """Every name of the same tensor."""
        return [other for other, first in self._first.items() if first == self._first.get(name)]

    def current(self, name: str) -> Tensor:
        """What is in the model under this name now: the tensor if it is loaded, else its shape on meta."""
        module, own = self._places[self._first[name]][0]
        return getattr(module, own)

    def names(self, module: str) -> list[str]:
        """First names of all that the module and its submodules hold; "" is the whole model."""
        prefix = module + "." if module else ""
        return list(dict.fromkeys(first for name, first in self._first.items() if name.startswith(prefix)))

    def bytes(self, module: str) -> int:
        """Size on disk of what the module holds."""
        stored = (self._disk[name] if name in self._pieces else self._disk[name][:1] for name in self.names(module))
        return sum(self.checkpoint.tensors[disk].bytes for disks in stored for disk in disks)

    def read(self, name: str, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> Tensor:
        """The tensor, in `dtype` where it is a floating one. Raises InputError when it holds NaN or infinity."""
        disks, pieces = self._disk[self._first[name]], self.pieces(name)
        if pieces:
            tensor = put_together(pieces, self._empty[self._first[name]].shape, map(self.read_stored, disks))
        else:
            tensor = self.read_stored(disks[0])
        for other in () if pieces else disks[1:]:
            if not torch.equal(tensor, self.checkpoint.read(other)):
                raise InputError(
                    f"{self.checkpoint.folder}: {disks[0]} and {other} differ, but config.json ties them; "
                    f"set tie_word_embeddings to false there if they are meant to differ"
                )
        if dtype is not None and tensor.is_floating_point():
            tensor = tensor.to(dtype)
        return tensor.to(device)

    def load(
        self, module: str, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
    ) -> dict[str, Tensor]:
        """Give a module and its submodules real parameters and buffers, those that it has not yet.

        A tied tensor becomes real in all its places. Returns what was loaded, by first name.
        """
        return self.load_names(self.names(module), dtype, device)

    def unload(self, module: str) -> None:
        """Put the module back onto the meta device."""
        self.unload_names(self.names(module))

    def unload_names(self, names: Iterable[str]) -> None:
        """Put single tensors back onto the meta device."""
        for name in names:
            self._assign(name, self._empty[name])

    def load_rest(
        self, blocks: Iterable[str], dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
    ) -> dict[str, Tensor]:
        """Load all that lives, also, outside of the modules `blocks`; tied tensors stay one object."""
        return self.load_names(self.outside(blocks), dtype, device)

    def outside(self, blocks: Iterable[str]) -> list[str]:
        """First names of the tensors with a place outside of the modules `blocks`."""
        prefixes = tuple(block + "." for block in blocks)
        return list(dict.fromkeys(first for name, first in self._first.items() if not name.startswith(prefixes)))

    def load_names(
        self, names: Iterable[str], dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
    ) -> dict[str, Tensor]:
        """Load single tensors, those that are not yet; returns what was loaded, by first name."""
        loaded = {}
        for name in names:
            module, own = self._places[name][0]
            if not getattr(module, own).is_meta:
                continue
            empty = self._empty[name]
            tensor = self.read(name, dtype, device)
            if isinstance(empty, nn.Parameter):
                tensor = nn.Parameter(tensor, requires_grad=False)
            loaded[name] = tensor
            self._assign(name, tensor)
        return loaded

    def _assign(self, name: str, tensor: Tensor) -> None:
        for module, own in self._places[name]:
            if own in module._parameters:
                module._parameters[own] = tensor  # pyright: ignore[reportArgumentType]
            else:
                module._buffers[own] = tensor

    def read_stored(self, disk: str) -> Tensor:
        """A stored tensor by its own name. Raises InputError when it holds NaN or infinity."""
        tensor = self.checkpoint.read(disk)
        if tensor.is_floating_point() and tensor.numel() and tensor.itemsize > 1:
            # The extremes show NaN and infinity in one pass and, unlike isfinite, without a mask.
            low, high = torch.aminmax(tensor)
            bound = tensor.numel() == 1 and bool(low.isinf())  # a single number: a limit that is never reached
            if not bound and not (torch.isfinite(low) and torch.isfinite(high)):
                spec = self.checkpoint.tensors[disk]
                raise InputError(f"{spec.file}: tensor {disk} holds NaN or infinity; fetch or save it again")
        return tensor

    def _check(self) -> None:
        check_shapes(self._wanted())
        if said := wrong_count(self.model, self.checkpoint.tensors, self.missing, self.unexpected):
            raise ModelError(f"{self.checkpoint.folder / 'config.json'}: {said}")
        if not self.missing:
            return
        more = f" and {len(self.missing) - 1} more" if len(self.missing) > 1 else ""
        near = f" (the file has {self.unexpected[0]}, for one, which the model does not)" if self.unexpected else ""
        raise ModelError(
            f"{self.checkpoint.folder / 'config.json'}: {type(self.model).__name__} needs {self.missing[0]}{more}, "
            f"which is neither stored nor tied to what is{near}; mend config.json, or fetch the weights again"
        )

    def _wanted(self) -> Iterator[Wanted]:
        for name, empty in self._empty.items():
            for piece in self._pieces.get(name, ()):
                yield self.checkpoint.tensors[piece.disk], piece.of(empty).shape, empty.dtype
            for disk in () if name in self._pieces else self._disk.get(name, ()):
                yield self.checkpoint.tensors[disk], empty.shape, empty.dtype
