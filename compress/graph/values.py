"""A forward on the meta device that knows what follows from the model's code alone.

Tensors there have no values, and python asks for some: whether a mask is causal, which positions a router picked, how
many tokens stand for an image. What was made of numbers in the code, and of inputs that are given with their values, is
computed beside the recording, on the CPU, as long as it is small. What hangs on weights or other inputs is guessed, and
what was guessed is noted.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from compress.graph.shapes import outcome

aten = torch.ops.aten
LARGEST = 1 << 22
"""Numbers of a tensor whose values are followed."""

UNSET = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided", "empty_permuted")
"""Whole numbers of these are followed from zeros: what code reads it has written before, one by one."""

SHAPED = ("new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like", *UNSET)
"""Of the operand of these, if they have one, only dtype and shape matter."""

OURS, THEIRS = Path(__file__).parents[1], Path(torch.__file__).parent


class Values:
    """The values of tensors on the meta device, where they are known."""

    def __init__(self) -> None:
        self._real: dict[int, Tensor] = {}
        self._twins: dict[int, Tensor] = {}  # of a tensor on the CPU, on the meta device
        self._alive: list[Tensor] = []  # ids stay unique only while the tensors live
        self._lost: set[int] = set()  # storages of which some value is no longer known

    def known(self, tensor: Tensor) -> Tensor | None:
        """The values of `tensor`, on the CPU; None where they are not known."""
        real = self._real.get(id(tensor)) if tensor.is_meta else tensor
        return None if real is None or real.untyped_storage().data_ptr() in self._lost else real

    def know(self, tensor: Tensor, real: Tensor) -> None:
        """Say what the values of a tensor on the meta device are."""
        if real.numel() <= LARGEST and real.shape == tensor.shape:
            self._real[id(tensor)] = real
            self._alive.append(tensor)

    def lend(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors on the meta device; the values of real ones are known from now on."""
        lent = {name: tensor.to("meta") for name, tensor in given.items()}
        for name, tensor in given.items():
            if not tensor.is_meta:
                self.know(lent[name], tensor)
        return lent

    def on_meta(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The same arguments with those tensors on the meta device that are on the CPU.

        A model's code makes constants there and adds them to what lies elsewhere.
        """
        return tree_map(lambda x: self._twin(x) if isinstance(x, Tensor) and not x.is_meta else x, (args, kwargs))

    def follow(self, func: Any, args: Any, kwargs: Any, operands: list[Tensor], result: Any) -> None:
        """Compute the values of an operator's `result`, if those of all `operands` are known."""
        outputs = tensors_in(result)
        name = func.overloadpacket.__name__
        if name in SHAPED and operands and all(x.numel() <= LARGEST for x in outputs):
            blank = torch.empty(operands[0].shape if operands[0].numel() <= LARGEST else 0, dtype=operands[0].dtype)
            args, operands = (blank, *args[1:]), [blank]
        known = all(self.known(x) is not None for x in operands)
        if not known or any(x.numel() > LARGEST for x in (*outputs, *operands)) or not _determined(func, outputs):
            self._lose(func, args, kwargs)
            return
        if not any(x.is_meta for x in (*outputs, *operands)):
            return  # it ran already
        made = self.compute(func, args, kwargs)
        for output, value in zip(outputs, tensors_in(made), strict=True):
            self.know(output, value.zero_() if name in UNSET else value)

    def compute(self, func: Any, args: Any, kwargs: Any) -> Any:
        """What `func` gives for arguments that are all known."""
        args, kwargs = tree_map(lambda x: self.known(x) if isinstance(x, Tensor) else x, (args, kwargs))
        return func(*args, **{**kwargs, **({"device": "cpu"} if "device" in kwargs else {})})

    def _twin(self, tensor: Tensor) -> Tensor:
        if id(tensor) not in self._twins:
            self._twins[id(tensor)] = tensor.to("meta")
            self._alive.append(tensor)
            self.know(self._twins[id(tensor)], tensor)
        return self._twins[id(tensor)]

    def _lose(self, func: Any, args: Any, kwargs: Any) -> None:
        """What an operator writes values to that are not known is not known either, nor are other views of it."""
        for place, name in _written(func):
            for tensor in tensors_in(args[place] if place < len(args) else kwargs.get(name)):
                if (real := self.known(tensor)) is not None and real.numel():
                    self._lost.add(real.untyped_storage().data_ptr())


class Unread(TorchDispatchMode):
    """A forward on the meta device that goes on where python asks for values.

    `answer` is what a value is taken for that is not known, and `branches` are the places in the model's code where it
    was; `masks` are those where positions were asked for of a mask that is not known: all of it counts as true, so that
    whatever may run does.
    """

    def __init__(self, answer: int = 0) -> None:
        super().__init__()
        self.values = Values()
        self.answer = answer
        self.branches: set[str] = set()
        self.masks: set[str] = set()
        self._validated: list[bool] = []

    def __enter__(self) -> Any:
        self._validated.append(Distribution._validate_args)
        Distribution.set_default_validate_args(False)  # their parameters have no values that could be looked at
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        Distribution.set_default_validate_args(self._validated.pop())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operands = tensors_in((args, kwargs))
        given = args, kwargs
        if any(x.is_meta for x in operands) and not all(x.is_meta for x in operands):
            args, kwargs = self.values.on_meta(args, kwargs)
        if func is aten._local_scalar_dense.default:
            return self._scalar(args[0])
        args = self._by_position(func, args)
        if args is not given[0]:
            operands = tensors_in((args, kwargs))
        result = self._run(func, args, kwargs)
        self.values.follow(func, args, kwargs, operands, result)
        self.saw(func, args, kwargs, operands, result)
        return result

    def saw(self, func: Any, args: Any, kwargs: Any, operands: list[Tensor], result: Any) -> None:
        """An operator ran; `operands` are the tensors among its arguments."""

    def _scalar(self, tensor: Tensor) -> Any:
        if (real := self.values.known(tensor)) is not None:
            return real.item()
        self.branches.add(line_of_code())
        return torch.full((), self.answer, dtype=tensor.dtype).item()

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func is aten.nonzero.default and args[0].is_meta:
            return self._positions(args[0])
        if func is aten.masked_select.default and args[0].is_meta:
            return torch.empty(len(self._positions(args[1])), dtype=args[0].dtype, device="meta")
        if func is aten._to_copy.default and args[0].is_meta and _goes_to_cpu(kwargs):
            return self._numbers(args[0], kwargs)
        if func is aten.repeat_interleave.Tensor and args[0].is_meta and not kwargs.get("output_size"):
            return self._repeated(args[0])
        if func is aten.split_with_sizes.default and self.branches:
            args = args[0], _parts(args[0].shape[args[2] if len(args) > 2 else 0], args[1]), *args[2:]
        try:
            return outcome(func, args, kwargs)
        except (NotImplementedError, RuntimeError):  # how many there are hangs on values
            tensors = tensors_in((args, kwargs))
            if not tensors or any(self.values.known(x) is None for x in tensors):
                raise
            made = self.values.compute(func, args, kwargs)
            return tree_map(lambda x: x.to("meta") if isinstance(x, Tensor) else x, made)

    def _numbers(self, tensor: Tensor, kwargs: Any) -> Tensor:
        """All values at once, as `tolist` asks for them."""
        real = self.values.known(tensor)
        if real is None:
            self.branches.add(line_of_code())
            real = torch.full(tensor.shape, self.answer, dtype=tensor.dtype)
        return aten._to_copy.default(real, **kwargs)

    def _repeated(self, times: Tensor) -> Tensor:
        """Each position so many times; all equally often where that is not known: how long what is said takes."""
        real = self.values.known(times)
        if real is None:
            self.branches.add(line_of_code())
            found = aten.repeat_interleave.Tensor(torch.full(times.shape, self.answer + 1, dtype=times.dtype))
            return torch.empty(found.shape, dtype=found.dtype, device="meta")
        return aten.repeat_interleave.Tensor(real).to("meta")

    def _positions(self, mask: Tensor) -> Tensor:
        """Where `mask` is true, `[count, dimensions]`; everywhere, where that is not known."""
        real = self.values.known(mask)
        if real is None:
            self._guess()
            real = torch.ones(mask.shape, dtype=torch.bool)
        found = real.nonzero()
        made = torch.empty(found.shape, dtype=found.dtype, device="meta")
        self.values.know(made, found)
        return made

    def _by_position(self, func: Any, args: Any) -> Any:
        """Look-ups by a mask as look-ups by the positions where it is true."""
        packet = func.overloadpacket
        if packet not in (aten.index, aten.index_put, aten.index_put_) or not any(map(_is_mask, args[1])):
            return args
        picks: list[Any] = []
        for one in args[1]:
            if _is_mask(one) and one.is_meta:
                found = self._positions(one)
                for place in range(one.dim()):
                    column = found[:, place]
                    if (real := self.values.known(found)) is not None:
                        self.values.know(column, real[:, place])
                    picks.append(column)
            else:
                picks.append(one)
        return args[0], picks, *args[2:]

    def _guess(self) -> None:
        self.masks.add(line_of_code())


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors among what an operator takes or gives, in order: sooner than torch's own, which knows any type."""
    if isinstance(value, Tensor):
        return [value]
    each = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for one in each for tensor in tensors_in(one)]


def spelled(values: Values, func: Any, args: Any) -> str | None:
    """A number as part of a text, such as a module's name, where it is known; None for any other function."""
    if func is not Tensor.__format__ or args[0].dim() or (real := values.known(args[0])) is None:
        return None
    return format(real.item(), *args[1:])


def written_constants(values: Values, func: Any, args: Any, kwargs: Any) -> Tensor | None:
    """`torch.tensor` of numbers in the code, whose values are known then; None for any other function."""
    if func not in (torch.tensor, torch.as_tensor) or not args or isinstance(args[0], Tensor):
        return None
    numbers = tree_map(lambda x: values.known(x) if isinstance(x, Tensor) else x, args)
    if any(x is None for x in tree_leaves(numbers)):
        return None
    made = func(*tree_map(lambda x: x.item() if isinstance(x, Tensor) else x, numbers), **kwargs)
    if made.is_meta:
        values.know(made, func(*numbers, **{**kwargs, "device": "cpu"}))
    return made


@cache
def _written(func: Any) -> tuple[tuple[int, str], ...]:
    """Place and name of the arguments that an operator writes to."""
    named = enumerate(func._schema.arguments)
    return tuple((i, x.name) for i, x in named if x.alias_info is not None and x.alias_info.is_write)


def _determined(func: Any, outputs: list[Tensor]) -> bool:
    """Whether the same operands always give the same."""
    if func.overloadpacket.__name__ in UNSET:
        return not outputs[0].is_floating_point()
    return torch.Tag.nondeterministic_seeded not in func.tags


def _goes_to_cpu(kwargs: Any) -> bool:
    return kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cpu"


def _parts(size: int, parts: list[int]) -> list[int]:
    """Sizes of parts that make up `size`; equal ones where what was guessed of them does not: tokens of each expert."""
    if sum(parts) == size:
        return parts
    each, over = divmod(size, len(parts))
    return [each + (number < over) for number in range(len(parts))]


def _is_mask(tensor: Any) -> bool:
    return isinstance(tensor, Tensor) and tensor.dtype in (torch.bool, torch.uint8)


def line_of_code() -> str:
    """File and line of the model's code that python runs now."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if OURS not in file.parents and THEIRS not in file.parents:
            return f"{file.name}:{frame.f_lineno}"
        frame = frame.f_back
    return "unknown"
