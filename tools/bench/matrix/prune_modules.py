"""A small model of a library, pruned in memory, and what of compress's promises holds for it."""

from __future__ import annotations

import copy
import time
import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

import compress
from compress.errors import VerifyError
from compress.graph.families import Graph
from compress.inputs.arguments import Arguments
from compress.inputs.given import Given
from compress.model.model import Model
from compress.model.skeleton import held_module
from compress.steps.units.masks import Kept, masks
from matrix.answers import answers
from matrix.given import apart
from matrix.kind import Entry, Say
from matrix.listed import line_of
from matrix.pins import INNER, pins
from matrix.rough import roughen

ENOUGH = 0.6
"""Share of the parameters of blocks that has to lie in free families."""

ALIKE = 1e-5
"""Largest difference of two outputs that are the same, as a share of the largest value."""


def examine(entry: Entry, folder: Path, say: Say) -> None:
    """Build it, trace it, remove half of its heads and channels, and compare the result with the masked original.

    Where heads and channels are few, as in networks whose blocks add what they are given to one convolution of it, the
    widths of their streams are removed too.
    """
    warnings.simplefilter("ignore")
    line = line_of(entry)
    module, x = line.module(), line.given()
    roughen(module)
    dense = answers(module, x)
    save_file({"x": x}, folder / "given.safetensors")
    save_file({name: value.clone() for name, value in module.state_dict().items()}, folder / "dense.safetensors")
    say(built=bool(dense), parameters=sum(p.numel() for p in module.parameters()))
    start = time.perf_counter()
    source = Model.of(held_module(module, Given(Arguments.of(module, x))))
    found, units = pins(source), ["heads", "channels"]
    if found["share"] < ENOUGH and has_streams(source.graph):
        found, units = pins(source, (*INNER, "hidden")), [*units, "hidden"]
    say(seconds_of_trace=round(time.perf_counter() - start, 3))
    say(traced=True, units=units, operators=list(source.graph.notes), **found)
    say(free=found["share"] >= ENOUGH, free_why=f"{found['share']:.0%} of its blocks' parameters are free")
    try:
        pruned = compress.prune(module, x, [{"prune": units, "by": "magnitude", "remove": "50%"}])
    except VerifyError:
        say(halved=True)
        raise
    plan = pruned.plan
    say(halved=True, before=plan.before["params"], after=plan.after["params"])
    say(verified=True, said=next((note for note in plan.notes if "verified" in note), ""))
    cut = answers(pruned.module.eval(), x)
    masked = masked_copy(module, source, masks(source.graph, plan.steps[0].decision["kept"]))
    off, effect = apart(cut, answers(masked, x)), apart(dense, cut)
    say(coupled=off <= ALIKE < effect, off=off, effect=effect)
    say(coupled_why=f"cut and masked differ by {off:.0e}" + ("" if effect > ALIKE else "; masking changes nothing"))
    save_file({name: value.contiguous() for name, value in cut.items()}, folder / "outputs.safetensors")
    pruned.save(folder / "pruned", build=line.build, arguments=line.arguments)


def has_streams(graph: Graph) -> bool:
    """Whether widths of the residual stream are local, so that they say something of what is understood: one for each
    stage or even block of a network of convolutions, which no norm averages over."""
    hidden = [family for family in graph.families.values() if family.kind == "hidden"]
    return len(hidden) > 1 and not any(family.averaged for family in hidden)


def masked_copy(module: nn.Module, source: Model, kept: Kept) -> nn.Module:
    """The dense module with zeros in all slices that went."""
    masked = copy.deepcopy(module)
    state = masked.state_dict()
    for name in source.graph.layouts:
        for dim, mask in source.graph.masks(name, kept).items():
            state[name].index_fill_(dim, torch.from_numpy(~mask).nonzero()[:, 0], 0)
    return masked
