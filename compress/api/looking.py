"""What a model consists of, and which of many recipes does best on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

from torch import nn

from compress.api.kinds import special
from compress.api.options import OptionFields, Options, chosen
from compress.checkpoint.open import open_to_inspect
from compress.comparison.candidates import candidates
from compress.comparison.run import Comparison
from compress.comparison.run import compare as run_all
from compress.comparison.write import write_comparison
from compress.inputs.arguments import Arguments
from compress.inputs.given import Given
from compress.model.skeleton import held_module
from compress.report.inspection import Inspection, inspect_model


def inspect(
    model: str | Path | nn.Module,
    example_inputs: Any = None,
    *,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    revision: str | None = None,
    base: str | None = None,
) -> Inspection:
    """Say what of a model can be pruned; the same as the command `compress inspect MODEL`. No weight is read.

    A config is enough: a folder may have nothing else, and of a model on the hub nothing else is fetched.

        found = compress.inspect("my-model")
        [family.name for family in found.families if family.pinned is None]

    Args:
        model: A folder, a hub id (`owner/name`, `owner/name@revision`), an .onnx file, or a module in memory.
        example_inputs: Of a module: what its forward is called with, as `prune` takes it.
        trust_remote_code: Run code that comes with the checkpoint.
        allow_pickle: Open weights that are pickled; a pickle can run code.
        revision: Branch, tag or commit of a hub model.
        base: Of a LoRA adapter: the model that it is merged into, where its config does not name it.

    Returns:
        The model's size, and its families of groups: what goes together, what it is worth, what is pinned and why.

    Raises:
        InputError: There is no such model, or its files are not usable.
        ModelError: The model is not understood.
    """
    if isinstance(model, nn.Module):
        given = Given(Arguments.of(model, example_inputs))
        return inspect_model(held_module(model, given), type(model).__name__)
    if (own := special(model)) is not None:
        return inspect_model(own.opened(Path(model)), str(model))
    checkpoint = open_to_inspect(
        model, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle, revision=revision, base=base
    )
    return inspect_model(checkpoint, str(model))


def compare(
    recipes: Sequence[str | Path],
    model: str | Path,
    out: str | Path,
    options: Options | None = None,
    *,
    sweep: Sequence[str] = (),
    set: Sequence[str] = (),
    keep: bool = True,
    **fields: Unpack[OptionFields],
) -> Comparison:
    """Run many recipes on one model; the same as the command `compress compare RECIPES… MODEL -o OUT`.

        found = compress.compare(["magnitude-20", "flap-20"], "my-model", "compared")
        [(row["name"], row["quality"]["value"]) for row in found["rows"]]

    Args:
        recipes: Names of recipes that ship, paths of YAML files, and folders of them.
        model: A folder, or a hub id.
        out: The folder to write compare.html, compare.json, compare.png and each recipe's model to.
        options: How to go about it; the defaults without.
        sweep: Fields and their values, as `--sweep` takes them: `["steps.0.remove=10%,20%"]`. Of several, every
            combination is run.
        set: Fields to change in every recipe: `["seed=1"]`.
        keep: Whether the models' weights stay, or their reports and plans only.
        **fields: Fields of `Options` as keyword arguments; they win over `options`.

    Returns:
        What compare.json holds: the `dense` model and a row for each recipe. A recipe that fails has its `error` there.

    Raises:
        InputError: A recipe, the model's folder or `out` is not usable as given, or no recipe is.
        ModelError: The model is not understood.
    """
    read = candidates([Path(recipe) for recipe in recipes], sweep, set)
    found = run_all(read, model, Path(out), chosen(options, fields), keep=keep)
    write_comparison(Path(out), found)
    return found
