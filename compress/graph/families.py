"""Families of groups: what can be removed, and the tensors each removal touches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Literal

import numpy as np

from compress.errors import InputError
from compress.graph.layout import Layout, families, keep_mask, kept_size

Kind = Literal["heads", "queries", "head_dim", "channels", "hidden", "vocab", "experts", "layers", "other"]
Role = Literal["in", "out", "other"]


@dataclass(frozen=True)
class Member:
    """One dimension of one stored tensor that loses slices when the family loses groups.

    `role` says what the dimension is to the matrix product that uses the tensor: its contracted input (`in`), its
    output (`out`), or neither (a bias, a norm's gain, an embedding).
    """

    tensor: str
    dim: int
    role: Role
    layout: Layout


@dataclass(frozen=True)
class Family:
    """`size` interchangeable groups; index i of the family is index i of its axis in every member.

    `layer` is the index of the repeated block that it lives in (None: it spans blocks). `pinned` is the reason why
    nothing may be removed, or None. `averaged`: a norm averages over it, so that no mask imitates a smaller one. A
    family of kind `layers` has no members: its groups are the blocks `blocks[i]`.
    Each of `router_groups` equal stretches of the index keeps as many groups as the others (a router that first
    chooses among groups of experts), and at least `min_kept` groups stay (as many as a router picks). A multiple of
    `round_to` groups stays where the widths that fast kernels take are steps (channels of stacked experts: rows of
    16 bytes).
    """

    name: str
    kind: Kind
    size: int
    members: tuple[Member, ...] = ()
    layer: int | None = None
    pinned: str | None = None
    blocks: tuple[str, ...] = ()
    router_groups: int = 1
    min_kept: int = 1
    round_to: int = 1
    averaged: bool = False


@dataclass(frozen=True)
class Convolution:
    """How a stored weight convolves: in so many `groups`, `transposed` or not. `mean` is the stored mean of the batch
    norm that alone takes its result, which can take up a bias; None where none does."""

    groups: int = 1
    transposed: bool = False
    mean: str | None = None


@dataclass(frozen=True)
class Work:
    """One matrix product: 2 × the product of the dimensions' sizes floating-point operations.

    `block` is the index in `Graph.blocks` that ran it, None outside of blocks. `repeats` counts identical runs.
    """

    dims: tuple[Layout, ...]
    block: int | None = None
    repeats: int = 1


@dataclass(frozen=True)
class Graph:
    """Everything the analyser knows: stored tensors, the layout of their dimensions, families, the work done.

    `layouts[tensor][dim]` covers every stored tensor. `blocks` are the names of the repeated modules on the residual
    stream, in order of execution. Axes named `batch` and `sequence` in `works` stand for the calibration shape.
    `untraced` are the stored tensors that the trace did not run, each with the largest module of which nothing ran:
    how they are coupled is not known. `convolutions` are the stored weights that convolve. `guessed` are places in the
    model's code where python branches on values that hang on weights or inputs. `values` has the layouts of other
    tensors whose layouts were asked for.
    """

    layouts: Mapping[str, tuple[Layout, ...]]
    families: Mapping[str, Family]
    blocks: tuple[str, ...]
    works: tuple[Work, ...]
    notes: tuple[str, ...] = ()
    shared: Mapping[str, str] = field(default_factory=dict)  # a tied name → the name it is stored under
    untraced: Mapping[str, str] = field(default_factory=dict)
    convolutions: Mapping[str, Convolution] = field(default_factory=dict)
    guessed: tuple[str, ...] = ()
    values: Mapping[str, tuple[Layout, ...]] = field(default_factory=dict)

    def of_kind(self, *kinds: str) -> list[Family]:
        """The families of these kinds that may lose groups, in order of execution."""
        return [f for f in self.families.values() if f.kind in kinds and f.pinned is None]

    def layers(self, indices: Iterable[int]) -> set[int]:
        """Indices in `blocks`, from `skip_layers` of a step, which may count from the end. Raises InputError."""
        total, indices = len(self.blocks), list(indices)
        if bad := [index for index in indices if not -total <= index < total]:
            raise InputError(f"skip_layers: {bad[0]} is no layer, the model has {total}")
        return {index % total for index in indices}

    def block_of(self, tensor: str) -> int | None:
        """Index of the block that owns the stored tensor, None when none does."""
        return self._owners.get(tensor)

    def removed_blocks(self, kept: Mapping[str, np.ndarray]) -> frozenset[int]:
        """Indices (in `blocks`) that families of kind `layers` lose."""
        place = {name: i for i, name in enumerate(self.blocks)}
        return frozenset(
            place[family.blocks[i]]
            for name, mask in kept.items()
            if (family := self.families[name]).kind == "layers"
            for i in np.flatnonzero(~mask)
        )

    def masks(self, tensor: str, kept: Mapping[str, np.ndarray]) -> dict[int, np.ndarray]:
        """Per dimension that shrinks, the kept positions as bool `[size]`."""
        return {
            dim: keep_mask(layout, kept)
            for dim, layout in enumerate(self.layouts[tensor])
            if any(name in kept for name in families(layout))
        }

    def shapes(self, kept: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
        """Shape of every stored tensor that is left after removal (names as in the full model)."""
        gone, sizes = self.removed_blocks(kept), _sizes(kept)
        return {
            tensor: tuple(kept_size(layout, sizes) for layout in dims)
            for tensor, dims in self.layouts.items()
            if self.block_of(tensor) not in gone or self.block_of(tensor) is None
        }

    def parameters(self, kept: Mapping[str, np.ndarray] | None = None) -> int:
        """Stored parameters left, ties counted once."""
        return sum(prod(shape) for shape in self.shapes(kept or {}).values())

    def flops(self, kept: Mapping[str, np.ndarray] | None = None, *, batch: int = 1, sequence: int = 512) -> int:
        """Floating-point operations of the matrix products in one forward of `[batch, sequence]` tokens."""
        kept = kept or {}
        gone, sizes = self.removed_blocks(kept), {**_sizes(kept), "batch": batch, "sequence": sequence}
        return sum(
            2 * work.repeats * prod(kept_size(dim, sizes) for dim in work.dims)
            for work in self.works
            if work.block is None or work.block not in gone
        )

    @cached_property
    def _owners(self) -> dict[str, int]:
        owners = {}
        prefixes = {name + ".": i for i, name in enumerate(self.blocks)}
        for tensor in self.layouts:
            parts = tensor.split(".")
            for end in range(1, len(parts)):
                if (i := prefixes.get(".".join(parts[:end]) + ".")) is not None:
                    owners[tensor] = i
        return owners


def _sizes(kept: Mapping[str, np.ndarray]) -> dict[str, int]:
    return {name: int(mask.sum()) for name, mask in kept.items()}
