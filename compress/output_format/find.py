"""Who can open the result: stock transformers where a config says it all, else with the modeling file beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import transformers

from compress.errors import InputError, ModelError
from compress.graph.families import Member
from compress.graph.names import Names
from compress.graph.projection import added, repairable
from compress.graph.uses import bias_name
from compress.model.model import Model
from compress.output_format.generic import auto_class, generic_plan
from compress.output_format.module import find_changes
from compress.output_format.native import NativePlan, find_native, plain
from compress.output_format.probe import attention_shapes
from compress.output_format.trial import expected
from compress.recipe.prune import Widths

Kept = Mapping[str, np.ndarray]
NO_REPAIR = ("hidden", "vocab", "layers", "other")
"""Kinds whose consumers no repair touches: their inputs are the residual stream itself."""


@dataclass(frozen=True)
class OutputFormat:
    """`config` is the whole config.json; of a module in memory its `Changes`. `shapes` and `zeros` go by new state
    names, `biases` (new biases of repaired weights) by old ones. `edits`: changed config values, path → (old, new).
    `how` is the line of Python that loads."""

    config: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    remote_code: bool
    how: str
    who: str
    biases: dict[str, tuple[int, ...]] = field(default_factory=dict)
    zeros: dict[str, tuple[int, ...]] = field(default_factory=dict)
    transformers: bool = True
    edits: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def described(self) -> dict[str, Any]:
        """Who opens the result and how, as a plan's `opens_with`."""
        return {"transformers": self.transformers, "remote_code": self.remote_code, "who": self.who, "how": self.how}


def find_output_format(
    source: Model, kept: Kept, *, adds_bias: bool = False, widths: Widths = "uniform"
) -> OutputFormat:
    """How the model that keeps `kept` is to be written; `adds_bias`: every repaired weight gets a bias.

    Raises InputError where uniform widths would be native but for the biases that a repair wants, ModelError where
    not even the modeling file can hold the result.
    """
    if source.checkpoint.architecture is not None:
        return _of_module(source, kept, _new_biases(source, kept) if adds_bias else {})
    graph, names = source.graph, Names(source.graph, kept)
    shapes = {new: shape for name, shape in graph.shapes(kept).items() if (new := names.new(name)) is not None}
    biases = _new_biases(source, kept) if adds_bias else {}
    extra = {new: shape for name, shape in biases.items() if (new := names.new(name)) is not None}
    given: dict[str, Any] = {"kept_layers": names.layers, "head_dim": _head_dim(source, kept)}
    raw = source.checkpoint.config
    found = find_native(raw, source.cls, {**shapes, **extra}, extra_biases=extra, **given)
    if isinstance(found, NativePlan):
        changed = _spelled(found.edits)
        who, where = _opened_by(found.architecture, source)
        return OutputFormat(
            found.config,
            {**shapes, **extra},
            remote_code=False,
            who=f"{who}, as {found.architecture}",
            how=f"{where}.{found.architecture}.from_pretrained({{folder!r}})",
            biases=biases,
            zeros=found.zeros,
            edits=found.edits,
            notes=(f"config: {changed}",) if changed else (),
        )
    if extra and widths == "uniform" and isinstance(find_native(raw, source.cls, shapes, **given), NativePlan):
        raise InputError(
            f"{source.cls.__name__} has no place for the biases that this repair adds ({min(extra)}); take "
            "`repair: least_squares`, which needs none, or `widths: per-layer`, which writes a modeling file"
        )
    try:
        laid = expected(graph, kept, names)
        generic = generic_plan(raw, source.cls, {**shapes, **extra}, extra_biases=extra, laid=laid, **given)
    except ModelError as error:
        raise ModelError(f"{error}\n(stock transformers do not fit either: {found})") from None
    config, cls, _, _ = plain(raw, source.cls, None)
    auto = auto_class(config, cls)
    cure = "; `skip` these tensors or take a share that fits to have an ordinary one" if widths == "uniform" else ""
    return OutputFormat(
        generic.config,
        {**shapes, **extra},
        remote_code=True,
        who="transformers with trust_remote_code=True, or after `import compress.model.register`"
        + ("" if hasattr(transformers, cls.__name__) else f", once {cls.__module__} is imported"),
        how=f"transformers.{auto}.from_pretrained({{folder!r}}, trust_remote_code=True)",
        biases=biases,
        edits=generic.edits,
        notes=(f"a modeling file goes along, as stock transformers cannot hold these shapes: {found}{cure}",),
    )


def _of_module(source: Model, kept: Kept, biases: dict[str, tuple[int, ...]]) -> OutputFormat:
    """The module itself, its parameters cut and what it knows of their sizes changed; or an ONNX file."""
    from compress.output_format.onnx import describe_onnx  # what runs ONNX graphs takes long to import

    names = Names(source.graph, kept)
    if (opens := describe_onnx(source, kept)) is not None:
        shapes = {**source.graph.shapes(kept), **biases}
        return OutputFormat({}, shapes, remote_code=False, biases=biases, transformers=False, **opens)
    found = find_changes(source, kept, {new: s for name, s in biases.items() if (new := names.new(name)) is not None})
    edits = found.edits
    return OutputFormat(
        found.changes.data(),
        found.shapes,
        remote_code=False,
        who="PyTorch, as the module itself; from its folder compress.load, with what makes the dense module",
        how="compress.load({folder!r}, build=…)",
        biases=biases,
        transformers=False,
        edits=edits,
        notes=(
            *([f"attributes: {_spelled(edits)}"] if edits else []),
            *([f"views follow their inputs in {_titled(found.changes.views)}"] if found.changes.views else []),
            *([f"splits have parts of other sizes in {_titled(found.changes.splits)}"] if found.changes.splits else []),
        ),
    )


def _titled(modules: Iterable[str]) -> str:
    return ", ".join(name or "the module itself" for name in modules)


def _opened_by(architecture: str, source: Model) -> tuple[str, str]:
    """Whose class it is, and the module to take it from: another package may have registered one with transformers."""
    if hasattr(transformers, architecture):
        return "stock transformers", "transformers"
    return f"transformers, once {source.cls.__module__} is imported", source.cls.__module__


def repaired_weights(source: Model, kept: Kept) -> dict[str, Member]:
    """The weights whose inputs lose positions, state name → the member that says along which dimension."""
    removed = source.graph.removed_blocks(kept)
    found: dict[str, Member] = {}
    for name, mask in kept.items():
        family = source.graph.families[name]
        if family.kind in NO_REPAIR or mask.all():
            continue
        for member in family.members:
            owner = source.graph.block_of(member.tensor)
            if repairable(source.graph, member) and owner not in removed:
                found.setdefault(member.tensor, member)
    return found


def _new_biases(source: Model, kept: Kept) -> dict[str, tuple[int, ...]]:
    """Biases that repaired weights lack; all layers get them where one does, so that the layers stay alike."""
    found = {}
    for name, member in repaired_weights(source, kept).items():
        bias = bias_name(name)
        if added(source.graph, name) is None and name.endswith("weight"):
            found[bias] = (source.graph.shapes(kept)[name][1 - member.dim],)
    return found


def _head_dim(source: Model, kept: Kept) -> int | None:
    """New width of a head where queries and keys lose some of it."""
    cut = [
        mask
        for name, mask in kept.items()
        if source.graph.families[name].kind == "head_dim" and not name.endswith("v_dim") and not mask.all()
    ]
    widths = {width for _, width in attention_shapes(source.module)} if cut else ()  # a forward of all layers
    if len(widths) != 1:
        return None
    return int(widths.pop() * cut[0].sum() // len(cut[0]))


def _spelled(edits: Mapping[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{path} {old} → {new}" for path, (old, new) in edits.items())
