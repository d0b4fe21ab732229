"""The graph beside the model it was made from, at shapes that the exporter did not see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.errors import ModelError, VerifyError
from compress.onnx.interface import Interface, part
from compress.onnx.session import Session
from compress.onnx.settings import OnnxSettings
from compress.tasks.asked import asked

SHAPES = ((3, 13), (1, 21))
"""(batch, length); the last row of each is padded."""

PREFILL, CHUNK = 0.5, 0.75
"""A cached decoder reads half of the tokens, then a quarter at once, then the others one by one."""


@dataclass(frozen=True)
class Parity:
    """Largest difference of any output from torch's at this shape: `absolute`, and as a share of torch's `largest`."""

    batch: int
    length: int
    absolute: float
    largest: float

    @property
    def relative(self) -> float:
        """`absolute` as a share of the largest value."""
        return self.absolute / self.largest if self.largest else float("inf")


def check(model: nn.Module, interface: Interface, path: Path, settings: OnnxSettings) -> list[Parity]:
    """Run the graph at two shapes (one, where all axes are fixed) beside `model`.

    Raises VerifyError above the tolerance, which is times the largest value where that is above one.
    """
    session = Session(path)
    found = [_compare(model, interface, session, *shape) for shape in dict.fromkeys(_shapes(interface, settings))]
    for one in found:
        if not one.absolute <= settings.tolerance * max(1.0, one.largest):  # also where it is no number
            raise VerifyError(
                f"{path.name}: at {one.batch} × {one.length} {interface.noun} ONNX Runtime is {one.absolute:.1e} from "
                f"torch's values of up to {one.largest:.1f}; the tolerance is {settings.tolerance:g}"
            )
    return found


def _shapes(interface: Interface, settings: OnnxSettings) -> Iterator[tuple[int, int]]:
    """(batch, length); where the length is not free, whatever the interface gives."""
    for batch, length in SHAPES:
        length = min(length, interface.longest or length)
        free = "sequence" in settings.dynamic and interface.free
        yield batch if "batch" in settings.dynamic else settings.batch, length if free else settings.length


def _compare(model: nn.Module, interface: Interface, session: Session, batch: int, length: int) -> Parity:
    sample = interface.sample(batch, length, seed=batch)
    with torch.inference_mode():
        wanted = tensors(asked(model, {"return_dict": True})(**sample))
    try:
        given = (_stepwise if interface.cache else _whole)(session, sample)
    except Exception as error:  # ONNX Runtime has errors of its own
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"{type(model).__name__}: its graph does not run on {batch} × {length} {interface.noun}, so an axis is "
            f"fixed inside of it, such as the batch: leave it out of dynamic ({reason})"
        ) from error
    seen = interface.seen(sample)
    differences, sizes = [], []
    for name, value in given.items():
        mine, other = torch.from_numpy(value), wanted[name]
        if seen is not None and other.shape[:2] == seen.shape:  # what padding gives is of no account
            mine, other = mine[seen], other[seen]
        differences.append(float((mine - other).abs().max()))
        sizes.append(float(other.abs().max()))
    return Parity(batch, interface.length(sample), float(np.max(differences)), max(sizes))


def tensors(output: Any) -> dict[str, Tensor]:
    """The float tensors of a model's output by name; those of an output in it behind its name and a dot."""
    found: dict[str, Tensor] = {}
    for name, value in output.items():
        if isinstance(value, Tensor) and value.is_floating_point():
            found[name] = value
        elif hasattr(value, "items"):
            found |= {f"{name}.{inner}": tensor for inner, tensor in tensors(value).items()}
    return found


def _whole(session: Session, sample: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return session({name: value.numpy() for name, value in sample.items()})


def _stepwise(session: Session, sample: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Logits of all tokens, read in pieces; the cache goes from ONNX Runtime back into it."""
    batch, length = sample["input_ids"].shape
    cuts = [0, int(PREFILL * length), *range(int(CHUNK * length), length + 1)]
    cache, logits = session.empty(batch), []
    for start, stop in pairwise(cuts):
        now = {name: value.numpy() for name, value in part(sample, start, stop).items()}
        one, cache = session.step(now["input_ids"], now["attention_mask"], cache)
        logits.append(one)
    return {"logits": np.concatenate(logits, 1)}
