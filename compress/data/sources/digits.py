"""Written digits that come with a package, without a network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from compress.errors import InputError
from compress.registry import sources

HELD_OUT = 5
"""One digit in so many belongs to the split `test`."""


@sources.add("digits", gives="classes")
def digits(*, split: Literal["train", "test"] = "train") -> Iterator[tuple[Tensor, int]]:
    """The written digits of scikit-learn, uint8 `[8, 8, 3]`, each with the number that it is, in a mixed order.

    `test` are those that `train` keeps back. Raises InputError where scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise InputError("digits: needs scikit-learn; pip install scikit-learn") from None
    found: Any = load_digits()
    images, numbers = torch.from_numpy(found.images), found.target
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).tolist()
    for place in order:
        if (place % HELD_OUT == 0) == (split == "test"):
            yield (images[place] / 16 * 255).to(torch.uint8)[..., None].expand(-1, -1, 3), int(numbers[place])
