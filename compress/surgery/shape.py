"""Who can open the result: an ordinary checkpoint of a stock architecture, or a folder with its modeling file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.errors import BudgetError
from compress.surgery.cut import Cut, Mend
from compress.surgery.generic import auto_class, generic_plan
from compress.surgery.native import find_native

if TYPE_CHECKING:
    from compress.decide import Model


@dataclass(frozen=True)
class Shape:
    """The written folder's config and what goes with it.

    `remote`: opening takes `trust_remote_code=True` (or `import compress.modeling`). `zeros` are tensors to be written
    as zeros, `added` counts them and new biases. `how` is the line of Python that loads the folder.
    """

    config: dict[str, Any]
    remote: bool
    how: str
    added: int = 0
    zeros: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    edits: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def find_shape(model: Model, cut: Cut, mend: Mend | None, *, widths: str) -> Shape:
    """How the cut model will be opened: by stock transformers where that is possible at all.

    Raises BudgetError where the repair wants biases that no stock architecture has and `widths` is `uniform`: then the
    folder was meant for stock loaders. Raises ModelError where not even the modeling file can hold the shapes.
    """
    graph = cut.graph
    shapes = {cut.renamed(name): shape for name, shape in cut.shapes.items()}
    biases = {cut.renamed(name): name for name in cut.new_biases(mend)}
    consumers = cut.consumers()
    sizes = {}
    for new, name in biases.items():
        weight = name.removesuffix("bias") + "weight"
        sizes[new] = (cut.shapes[weight][1 - consumers[weight][0]],)
    everything = {**shapes, **sizes}
    options: dict[str, Any] = {
        "kept_layers": cut.layers,
        "extra_biases": tuple(biases),
        "head_dim": _head_dim(cut),
        "raw": model.checkpoint.config,
    }
    auto = auto_class(model.config, model.cls)
    bias_count = sum(prod(size) for size in sizes.values())
    native = find_native(model.config, model.cls, everything, **options)
    if not isinstance(native, str):
        zeros = {name: shape for name, shape in native.zeros.items() if name not in everything}
        notes = ()
        if native.model_type != model.checkpoint.config.get("model_type"):
            was = model.checkpoint.config.get("model_type")
            notes = (f"written as {native.model_type}, which computes the same as {was} and allows these widths",)
        return Shape(
            native.config,
            False,
            f"{auto}.from_pretrained(folder)",
            bias_count + sum(prod(shape) for shape in zeros.values()),
            zeros,
            edits=_named(native.edits),
            notes=notes,
        )
    if biases and widths == "uniform":
        without = find_native(model.config, model.cls, shapes, **{**options, "extra_biases": ()})
        if not isinstance(without, str):
            raise BudgetError(
                f"the repair adds {len(biases)} biases ({next(iter(biases))}, …) that no stock architecture of this "
                f"sort has, and a constant in the residual stream cannot be folded into other weights; "
                f"use `repair: least_squares` or `repair: obs`, or `widths: per-layer`, whose modeling file holds biases"
            )
    generic = generic_plan(model.config, model.cls, everything, **options)
    assert graph.families
    return Shape(
        generic.config,
        True,
        f"{auto}.from_pretrained(folder, trust_remote_code=True)",
        bias_count,
        files=generic.files,
        edits=_named(generic.edits),
        notes=(f"no stock architecture has these shapes ({native}): the folder carries modeling_compress.py",),
    )


def save_config(shape: Shape, folder: Path) -> None:
    """Write config.json and the files that belong to it."""
    text = json.dumps(shape.config, indent=2, ensure_ascii=False)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    for file in shape.files:
        shutil.copyfile(file, folder / file.name)


def _head_dim(cut: Cut) -> int | None:
    """The new width of a head, where families of that kind lose some; None where it stays."""
    left = {
        int(mask.sum()) for name, mask in cut.kept.items() if cut.graph.families[name].kind == "head_dim"
    }
    return left.pop() if len(left) == 1 else None


def _named(edits: Mapping[Any, tuple[Any, Any]]) -> dict[str, tuple[Any, Any]]:
    return {field if isinstance(field, str) else ".".join(map(str, field)): values for field, values in edits.items()}
