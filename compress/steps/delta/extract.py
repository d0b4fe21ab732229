"""Fine-tuned model and base in, pruned delta out: matched, dropped, divided, written tensor by tensor."""

from __future__ import annotations

import time
from math import prod
from pathlib import Path

from torch import Tensor

from compress.checkpoint.beside import copy_beside
from compress.checkpoint.header import NAMES
from compress.checkpoint.open import Checkpoint, open_checkpoint
from compress.checkpoint.write import ShardWriter, Spec, check_apart, new_folder
from compress.console import say, track
from compress.data.tokens import load_tokenizer
from compress.execution.run import Options, open_input
from compress.inputs.text import batches
from compress.model.build import load_config
from compress.recipe.delta import PruneDelta
from compress.recipe.schema import Recipe
from compress.steps.delta.difference import Difference, find_difference
from compress.steps.delta.divisors import Divisors, find_divisors
from compress.steps.delta.drop import keep
from compress.steps.delta.format import DESCRIPTION, METADATA, TENSORS, Description, Stored, write_json
from compress.steps.delta.sparse import pack
from compress.steps.delta.trial import Trial

FULL = 10**18  # bytes of a shard: a delta is one file


def extract(recipe: Recipe, step: PruneDelta, model_in: str | Path, model_out: Path, options: Options) -> Description:
    """Prune the delta of the fine-tuned model `model_in` by the recipe's only `step` into the new folder `model_out`.

    Both checkpoints are read twice, as the layout of the file is written before its tensors. Only a search for q, and
    the comparison of outputs (`options.evaluate`), load the fine-tuned model whole. Raises InputError when the models
    do not fit each other, are the same, or cannot be read; then nothing is written.
    """
    trust, pickles = options.trust_remote_code, options.allow_pickle
    with new_folder(model_out, force=options.force, inputs=[model_in, step.base]) as folder:
        tuned = open_input(model_in, options)
        for note in tuned.left_behind:
            say(note)
        base = open_checkpoint(step.base, trust_remote_code=trust, allow_pickle=pickles)
        check_apart(model_out, [tuned.folder, base.folder])  # of a hub id it is known only now
        with tuned.unchanged(), base.unchanged():
            described = _write(recipe, step, tuned, base, str(model_in), options, folder)
    return described


def _write(
    recipe: Recipe,
    step: PruneDelta,
    tuned: Checkpoint,
    base: Checkpoint,
    model: str,
    options: Options,
    folder: Path,
) -> Description:
    """The delta of two open checkpoints into `folder`; `model` is the fine-tuned one as it was named."""
    start = time.perf_counter()
    difference = find_difference(tuned, base, step.skip)
    trial = _trial(recipe, difference, options) if options.evaluate or step.by == "darex" else None
    divisors = find_divisors(step, trial, recipe.seed)
    outputs = _outputs(trial, step, divisors, recipe.seed) if trial else {}
    del trial  # the model makes room
    tensors, specs = _layout(difference, step, divisors, recipe.seed)
    with ShardWriter(folder, specs, shard_bytes=FULL, metadata=METADATA) as writer:
        for name in track(tuned.tensors, "writing the delta"):
            if tensors[name].form != "same":
                for part, tensor in _parts(difference, step, divisors, recipe.seed, name).items():
                    writer.add(part, tensor)
    writer.files[0].rename(folder / TENSORS)
    kept = sum(prod(spec[2]) for spec in specs if spec[0].endswith(".values"))
    described = Description(
        base={"name": step.base, "digest": base.digest, "bytes": base.bytes},
        tuned={"name": model, "digest": tuned.digest, "bytes": tuned.bytes},
        config=tuned.config,
        method=step.model_dump(mode="json", include=_read_by(step)),
        tensors=tensors,
        found={
            "bytes": writer.bytes,
            "pruned": sum(prod(tuned.tensors[name].shape) for name in difference.pruned),
            "kept": kept,
            "q": divisors.common,
            "outputs": outputs,
            "seconds": round(time.perf_counter() - start, 3),
        },
        recipe=recipe.dump(),
    )
    write_json(folder / DESCRIPTION, described.data())
    copy_beside(tuned.side_files, tuned.folder, folder, trust_remote_code=tuned.trust_remote_code)
    return described


def _read_by(step: PruneDelta) -> set[str]:
    more = {"q", *(["seeds"] if step.q == "global" else ["eta"])} if step.by == "darex" else set()
    return {"by", "remove", "skip", *more}


def _trial(recipe: Recipe, difference: Difference, options: Options) -> Trial:
    tuned = difference.tuned
    rows, _ = batches(recipe.calibrate, load_tokenizer(tuned), load_config(tuned), recipe.seed)
    return Trial(difference, rows, options.where)


def _outputs(trial: Trial, step: PruneDelta, divisors: Divisors, seed: int) -> dict[str, str | float]:
    """How far the outputs are from the fine-tuned model's: with the base alone, this delta, and DARE's divisor."""
    trial.put_base()
    found: dict[str, str | float] = {"measure": trial.measure, "base": trial.distance_now()}
    if step.by == "darex":
        drawn = trial.entries(lambda name, delta: keep(delta, step.remove, step.by, name=name, seed=seed))
        found["dare"] = trial.distance(drawn, 1 - step.remove)
        del drawn
    for name, place in trial.places.items():
        place.copy_(
            (trial.difference.before(name) + _pruned(trial.difference, step, divisors, seed, name)[0]).to(place)
        )
    found["pruned"] = trial.distance_now()
    return found


def _pruned(
    difference: Difference, step: PruneDelta, divisors: Divisors, seed: int, name: str
) -> tuple[Tensor, Tensor]:
    """Δ / q with zeros where it is dropped, float32, and where it stays, bool."""
    delta = difference.delta(name)
    kept = keep(delta, step.remove, step.by, name=name, seed=seed) & (delta != 0)
    return divisors.divide(name, delta) * kept, kept


def _layout(
    difference: Difference, step: PruneDelta, divisors: Divisors, seed: int
) -> tuple[dict[str, Stored], list[Spec]]:
    """How every tensor of the fine-tuned model is stored, and what that puts into the file."""
    tuned: Checkpoint = difference.tuned
    tensors: dict[str, Stored] = {}
    specs: list[Spec] = []
    for name in track(tuned.tensors, "measuring the delta"):
        spec, base = tuned.tensors[name], difference.base_names.get(name)
        about = (NAMES[spec.dtype], list(spec.shape))
        if difference.unchanged(name):
            tensors[name] = Stored("same", *about, base)
            continue
        parts = _parts(difference, step, divisors, seed, name)
        specs += [(part, tensor.dtype, tuple(tensor.shape)) for part, tensor in parts.items()]
        forms = [part.rpartition(".")[2] for part in parts if part != name]
        tensors[name] = Stored(forms[1], *about, base) if forms else Stored("whole", *about)
    return tensors, specs


def _parts(difference: Difference, step: PruneDelta, divisors: Divisors, seed: int, name: str) -> dict[str, Tensor]:
    """What the file holds of a tensor, by its name there; values in the fine-tuned model's dtype."""
    if name not in difference.pruned:
        return {name: difference.tuned.read(name)}
    values, kept = _pruned(difference, step, divisors, seed, name)
    return {
        f"{name}.{part}": tensor for part, tensor in pack(values.to(difference.tuned.tensors[name].dtype), kept).items()
    }
