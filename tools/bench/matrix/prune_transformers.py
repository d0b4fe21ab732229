"""A tiny model of one transformers type, and what of compress's promises holds for it."""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn

from compress.checkpoint.open import open_checkpoint
from compress.errors import VerifyError
from compress.evaluate.load import load_model
from compress.execution.document import read_plan
from compress.execution.run import Options, Shared
from compress.export.write import write_exports
from compress.graph.trace import trace
from compress.inputs.batch import given as taken
from compress.inputs.choose import inputs_of
from compress.model.build import empty_model, load_config, model_class
from compress.model.model import Model
from compress.onnx.settings import OnnxSettings
from compress.pipeline import run
from compress.recipe.read import parse_recipe
from compress.steps.units.masks import Kept, masks
from matrix.given import apart, given, tensors
from matrix.kind import Entry, Say
from matrix.pins import pins
from matrix.rough import roughen
from matrix.small import small, smallest

HALF = "steps:\n- {prune: [heads, channels], by: magnitude, remove: 50%}\n"
ENOUGH = 0.6
"""Share of the parameters of blocks that has to lie in free families."""

ALIKE = 1e-5
"""Largest difference of two outputs that are the same, as a share of the largest value."""

LARGEST = 60_000_000
"""Parameters of a model that is still called tiny; embeddings of a type's own make some large."""


def examine(entry: Entry, folder: Path, say: Say) -> None:
    """Build it, trace it, remove half of its heads and channels, and compare the result with the masked original."""
    warnings.simplefilter("ignore")
    try:
        (model, inputs), level = smallest(lambda level: _built(entry, level, runs=True))
    except Exception:  # what no inputs tried here run is built all the same
        (model, inputs), level = smallest(lambda level: _built(entry, level, runs=False))
    model.save_pretrained(folder / "dense")
    if inputs is not None:
        save_file(_stored(inputs), folder / "given.safetensors")
    say(
        built=True, level=level, stock_forward=inputs is not None, parameters=sum(p.numel() for p in model.parameters())
    )
    del model, inputs
    say(seconds_of_trace=_trace(folder / "dense"))
    source = Model.of(open_checkpoint(folder / "dense"))
    found = pins(source)
    say(traced=True, operators=list(source.graph.notes), **found)
    say(free=found["share"] >= ENOUGH, free_why=f"{found['share']:.0%} of its blocks' parameters are free")
    recipe = parse_recipe(HALF)
    options = Options(evaluate=False, latency=False)
    try:
        run(recipe, folder / "dense", folder / "pruned", options, Shared(source, None, 16))
    except VerifyError:
        say(halved=True)
        raise
    plan = read_plan(folder / "pruned" / "plan.json")
    say(halved=True, before=plan.before["params"], after=plan.after["params"])
    say(verified=True, said=next((note for note in plan.notes if "verified" in note), ""))
    _compare(source, masks(source.graph, plan.steps[0].decision["kept"]), folder, say)
    (folder / "case.json").write_text(json.dumps(plan.steps[-1].opens_with), encoding="utf-8")
    if "onnx" in entry.marks:
        _export(folder, say)


def _built(entry: Entry, level: int, *, runs: bool) -> tuple[Any, dict[str, Tensor] | None]:
    """The model at this level, and inputs that its stock forward takes. Raises where it cannot be built, or has to run
    and does not."""
    cls: Any = getattr(transformers, entry.cls)
    kind = transformers.CONFIG_MAPPING[entry.name]
    config = kind.from_dict(small(entry.name, kind().to_dict(), level))
    vars(config).pop("quantization_config", None)  # some kinds add one; the weights that are made are not quantised
    with torch.device("meta"):
        count = sum(p.numel() for p in cls._from_config(kind.from_dict(config.to_dict())).parameters())
    if count > LARGEST:
        raise ValueError(f"{count / 1e6:.0f} M parameters")
    torch.manual_seed(0)
    model = cls._from_config(config, dtype=torch.float32).eval()
    roughen(model)
    inputs = given(model)
    if runs and inputs is None:
        raise ValueError("its forward takes none of the inputs that are tried")
    return model, inputs


def _trace(folder: Path) -> float:
    """Seconds from the config to the graph, the model's construction included."""
    checkpoint = open_checkpoint(folder)
    start = time.perf_counter()
    config = load_config(checkpoint)
    model = empty_model(config, model_class(config, checkpoint))
    trace(model, inputs_of(model, config).example())
    return round(time.perf_counter() - start, 3)


def _compare(source: Model, kept: Kept, folder: Path, say: Say) -> None:
    """The coupling invariant, by stock models alone: cut equals masked. What was found lies in `folder` afterwards."""
    inputs = taken(source.inputs.check())
    masked = load_model(source.checkpoint)
    dense = _output(masked, inputs)
    state = masked.state_dict()
    for name in source.graph.layouts:
        for dim, mask in source.graph.masks(name, kept).items():
            state[name].index_fill_(dim, torch.from_numpy(~mask).nonzero()[:, 0], 0)
    wanted = _output(masked, inputs)
    cut = _output(load_model(open_checkpoint(folder / "pruned")), inputs)
    alike = list(wanted)
    if "logits" in wanted:  # a width beside them may be one that was cut
        alike = [name for name, x in wanted.items() if name not in cut or x.shape == cut[name].shape]
    found, wanted, dense = ({n: x for n, x in each.items() if n in alike} for each in (cut, wanted, dense))
    off, effect = apart(found, wanted), apart(dense, wanted)
    say(coupled=off <= ALIKE < effect, off=off, effect=effect)
    say(coupled_why=f"cut and masked differ by {off:.0e}" + ("" if effect > ALIKE else "; masking changes nothing"))
    save_file({f"in.{name}": x for name, x in _stored(inputs).items()}, folder / "inputs.safetensors")
    save_file(_stored(cut), folder / "outputs.safetensors")


def _stored(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each with memory of its own and in order, as safetensors want it; one output may be the transpose of another."""
    return {name: x.clone(memory_format=torch.contiguous_format) for name, x in tensors.items()}


def _output(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    torch.manual_seed(0)  # some mask at random
    with torch.no_grad():
        return tensors(model(**inputs))


def _export(folder: Path, say: Say) -> None:
    try:
        write_exports({"onnx": OnnxSettings(cache=False)}, open_checkpoint(folder / "pruned"), folder)
    except Exception as error:  # the exporter raises whatever it meets; what else was found still stands
        say(onnx=False, onnx_why=" ".join(str(error).split())[:400])
