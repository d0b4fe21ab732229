"""What a benchmark needs to know of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

import compress
from compress.data.images import Preparation, image_samples
from compress.recipe.part import Part

BATCH = 16


@dataclass(frozen=True)
class Score:
    """How good a model still is: `values` `[samples]`, 1 for what the dense one does, higher is better; and `more`
    figures by name, of all samples."""

    values: Tensor
    more: dict[str, float]


@dataclass(frozen=True)
class Subject:
    """A `dense` model. `known` are pairs of what its forward is called with and a target, which `loss` compares with
    its output. `measure` scores a smaller one. The outputs of the modules that `inner` names are what may be pruned;
    where these are `chained`, what one puts out is what the next one reads, and both lose."""

    dense: nn.Module
    known: list[tuple[Any, Any]]
    loss: Callable[[Any, Any], Tensor]
    measure: Callable[[nn.Module], Score]
    measured: str
    inner: Sequence[str]
    chained: bool = False

    @cached_property
    def example(self) -> Any:
        """Two samples, as the forward is called."""
        first = self.known[0][0]
        return {name: one[:2] for name, one in first.items()} if isinstance(first, dict) else first[:2]

    @cached_property
    def skip(self) -> list[str]:
        """The families of channels that stay whole: no outputs of `inner`."""
        wanted = {f"{name}.weight[0]" for name in self.inner}
        families = compress.inspect(self.dense, self.example).families
        return [one.name for one in families if one.kind == "channels" and not wanted & set(one.members)]


def photos(split: str, count: int, prepare: Preparation) -> Tensor:
    """Crops of scikit-image's photos, as a model takes them."""
    return image_samples(Part("photos", {"split": split}), count, prepare, 0)


@torch.no_grad()
def answers(model: nn.Module, pixels: Tensor) -> Tensor:
    """What a model says of all pixels, a batch at a time."""
    return torch.cat([model(part) for part in pixels.split(BATCH)])


def paired(pixels: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of both."""
    return zip(pixels.split(BATCH), targets.split(BATCH), strict=True)
