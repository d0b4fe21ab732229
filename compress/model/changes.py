"""What pruning makes of a module, as plain values: enough to make it again of the dense one."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import InputError
from compress.model.narrow import can_narrow, narrow
from compress.model.views import follow

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Changes:
    """All by names in the smaller module, but for `layers`: list of blocks → the indices that stay.

    `shapes`: tensors that are cut. `biases`: those that are new. `narrowed`: attentions that become a class of this
    package, as torch's own cannot have their shape. `attributes`: module → path of an attribute → value; a path goes
    on, by dots, into what the attribute holds: an object, a dict, a tuple (`config.n_head`, `size.0`). `views`: module
    → number of a view in its forward → the place in its sizes that follows the input (`compress.model.views`).
    `splits`: module → number of a split in its forward → the sizes of its parts.
    """

    layers: Mapping[str, Sequence[int]] = field(default_factory=dict)
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    biases: Mapping[str, Sequence[int]] = field(default_factory=dict)
    narrowed: Sequence[str] = ()
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    views: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    splits: Mapping[str, Mapping[str, Sequence[int]]] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self)

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Changes:
        """What `data` gave. Raises InputError for anything else."""
        try:
            return cls(**data)
        except TypeError as error:
            raise InputError(f"not the changes of a pruned module ({error})") from None

    def apply(self, module: nn.Module) -> None:
        """Make them in `module`, the tensors' values aside: cut ones are on the meta device then.

        Raises InputError where it is another module than they were found for.
        """
        try:
            for stack, kept in self.layers.items():
                keep_layers(module, stack, kept)
            replace_tensors(module, self.shapes)
            for name, shape in self.biases.items():
                owner, own = _place(module, name)
                like: Tensor = owner.weight  # pyright: ignore[reportAssignmentType]
                owner.register_parameter(own, nn.Parameter(torch.empty(tuple(shape), dtype=like.dtype, device="meta")))
            for name in self.narrowed:
                attention = module.get_submodule(name)
                if can_narrow(attention):
                    narrow(attention)  # pyright: ignore[reportArgumentType]
            for name, values in self.attributes.items():
                for path, value in values.items():
                    put(module.get_submodule(name), path, value)
            for name in {**self.views, **self.splits}:
                places = {int(number): place for number, place in self.views.get(name, {}).items()}
                parts = {int(number): sizes for number, sizes in self.splits.get(name, {}).items()}
                follow(module.get_submodule(name), places, parts)
        except (AttributeError, KeyError, IndexError) as error:
            raise InputError(f"{type(module).__name__}: not the module that was pruned: {error}") from error


def keep_layers(module: nn.Module, stack: str, kept: Sequence[int]) -> None:
    """Take all but the blocks with the indices `kept` out of the list called `stack`."""
    blocks = module.get_submodule(stack)
    stays = [blocks._modules[str(index)] for index in kept]
    blocks._modules.clear()
    blocks._modules.update({str(number): block for number, block in enumerate(stays)})


def replace_tensors(module: nn.Module, shapes: Mapping[str, Sequence[int]]) -> None:
    """Give parameters and buffers other shapes, on the meta device; one with several names stays one.

    A buffer that is not stored keeps its first entries: it is cut only along what holds equal ones.
    """
    places: dict[int, list[tuple[dict[str, Any], str]]] = {}
    for part in module.modules():
        for kind in (part._parameters, part._buffers):
            for name, tensor in kind.items():
                if tensor is not None:
                    places.setdefault(id(tensor), []).append((kind, name))
    for name, shape in shapes.items():
        owner, own = _place(module, name)
        old: Tensor = getattr(owner, own)
        new = torch.empty(tuple(shape), dtype=old.dtype, device="meta")
        if own in owner._non_persistent_buffers_set:
            new = old[tuple(slice(size) for size in shape)].clone()
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, requires_grad=old.requires_grad)
        for kind, place in places[id(old)]:
            kind[place] = new


def fill(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Give a module whose weights are on the meta device these, by name; one with several names stays one."""
    given = {id(tensor): tensors[name] for name, tensor in module.state_dict(keep_vars=True).items() if name in tensors}
    made: dict[int, Tensor] = {}
    for part in module.modules():
        for kind in (part._parameters, part._buffers):
            for name, old in kind.items():
                if old is None or id(old) not in given:
                    continue
                new = made.get(id(old))
                if new is None:
                    new = given[id(old)]
                    if isinstance(old, nn.Parameter):
                        new = nn.Parameter(new, requires_grad=old.requires_grad)
                    made[id(old)] = new
                kind[name] = new  # pyright: ignore[reportArgumentType]


def get(module: Any, path: str) -> Any:
    """What lies at a path of `Changes.attributes`."""
    for part in path.split("."):
        module = _inside(module, part)
    return module


def put(module: Any, path: str, value: Any) -> None:
    """Set what lies at a path; what several modules hold in common is the module's own from then on."""
    first, _, rest = path.partition(".")
    if not rest:
        _set(module, first, value)
        return
    held = _inside(module, first)
    _set(module, first, _with(held, rest, value))


def _with(held: Any, path: str, value: Any) -> Any:
    """A copy of what an attribute holds with another value inside."""
    if isinstance(held, tuple):
        parts = _with(list(held), path, value)
        return type(held)(*parts) if hasattr(held, "_fields") else type(held)(parts)
    made = copy.copy(held)
    put(made, path, value)
    return made


def _inside(holder: Any, part: str) -> Any:
    if isinstance(holder, Mapping):
        return holder[part]
    if isinstance(holder, Sequence) and not isinstance(holder, nn.Module):
        return holder[int(part)]
    return getattr(holder, part)


def _set(holder: Any, part: str, value: Any) -> None:
    if isinstance(holder, dict):
        holder[part] = value
    elif isinstance(holder, list):
        holder[int(part)] = value
    else:
        object.__setattr__(holder, part, value)  # a frozen dataclass too; an integer is no module or parameter


def _place(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    parent, _, own = name.rpartition(".")
    return module.get_submodule(parent), own
