"""Inputs for a graph: what sizes they have, and which numbers may be in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from compress.errors import ModelError
from compress.onnx_model.arrays import DTYPES
from compress.onnx_model.file import is_cache
from compress.onnx_model.module import OnnxModule

ROWS = 2
"""Samples, where the file leaves their number open."""


@dataclass(frozen=True)
class Sizes:
    """What a file leaves open beside the batch: positions of a sequence, and a side of an image in `pixels`."""

    length: int = 8
    pixels: int = 64


SIZES = (Sizes(), Sizes(512, 224), Sizes(16_000, 320))
"""What is tried, one after the other: a graph may have operators that want more."""


def shapes(
    module: OnnxModule, rows: int = ROWS, *, sizes: Sizes = SIZES[0], caches: bool = True
) -> dict[str, list[int]]:
    """A shape for every input; sizes that the file gives one name are one, and sums of names are sums. Caches hold as
    many tokens as there are new ones; without `caches` there are none.

    Raises ModelError where the file does not say how many dimensions an input has.
    """
    length = sizes.length
    named = _totals(module, 2 * length if caches else length)
    found: dict[str, list[int]] = {}
    for each in module.onnx_file.inputs:
        kind = each.type.tensor_type
        if is_cache(each.name) and not caches:
            continue
        if not each.type.HasField("tensor_type") or not kind.HasField("shape"):
            raise ModelError(
                f"{module.onnx_file.path.name}: the shape of the input {each.name} is not given in the file"
            )
        dims = kind.shape.dim
        picture = len(dims) >= 4 and kind.elem_type in (1, 10) and not is_cache(each.name)
        found[each.name] = [
            _size(dim, place, rows, sizes.pixels if picture and place >= 1 else length, named)
            for place, dim in enumerate(dims)
        ]
    return found


def _totals(module: OnnxModule, length: int) -> dict[str, int]:
    """Where there is a cache, what counts its tokens and the new ones together is as long as both."""
    inputs = module.onnx_file.inputs
    names = {dim.dim_param for each in inputs for dim in each.type.tensor_type.shape.dim}
    if not any(is_cache(each.name) for each in inputs):
        return {}
    return {name: length for name in names if re.match(r"total_\w+", name)}


def _size(dim, place: int, rows: int, usual: int, named: dict[str, int]) -> int:
    if dim.dim_value > 0:
        return dim.dim_value
    if not dim.dim_param:
        return rows if place == 0 else usual
    terms = [term.strip() for term in dim.dim_param.split("+")]
    return sum(
        int(term) if term.isdecimal() else named.setdefault(term, rows if place == 0 else usual) for term in terms
    )


def examples(
    module: OnnxModule, sizes: Sizes = SIZES[0], *, rows: int = ROWS, seed: int = 0, caches: bool = True
) -> dict[str, Tensor]:
    """Random inputs. Whole numbers that look something up stay below the rows of the table; others are ones."""
    generator = torch.Generator().manual_seed(seed)
    tables = rows_looked_up(module)
    found: dict[str, Tensor] = {}
    wanted = shapes(module, rows, sizes=sizes, caches=caches)
    for each in module.onnx_file.inputs:
        if each.name not in wanted:
            continue
        shape = wanted[each.name]
        dtype = DTYPES[each.type.tensor_type.elem_type]
        if dtype.is_floating_point:
            found[each.name] = torch.randn(shape, generator=generator).to(dtype)
        elif each.name in tables:
            found[each.name] = torch.randint(tables[each.name], shape, generator=generator).to(dtype)
        else:
            found[each.name] = torch.ones(shape, dtype=dtype)
    return found


def rows_looked_up(module: OnnxModule) -> Mapping[str, int]:
    """Input → the rows of the smallest table that its numbers are looked up in, as they are or cast."""
    makers = {name: node for node in module.onnx_file.nodes for name in node.outputs}
    inputs = {each.name for each in module.onnx_file.inputs}
    found: dict[str, int] = {}
    for node in module.onnx_file.nodes:
        if node.kind != "Gather" or node.operand(0) not in module.onnx_file.arrays:
            continue
        name = node.operand(1)
        while name in makers and makers[name].kind in ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"):
            name = makers[name].inputs[0]
        if name in inputs:
            size = module.onnx_file.arrays[node.operand(0)].shape[node.get("axis", 0)]
            found[name] = min(size, found.get(name, size))
    return found
