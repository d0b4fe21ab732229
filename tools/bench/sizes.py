"""Perplexity against size on SmolLM2-135M: `compress auto`, recipes, and other people's programs, nothing trained.

    pip install --no-deps --target peers torch-pruning==1.6.1 && rm -r peers/*.dist-info   # its readme is no `manuals`
    PYTHONPATH=peers python tools/bench/sizes.py  # four hours; goes on where it was stopped
    python tools/bench/sizes.py auto SliceGPT     # these only; what docs/sizes.json has stays
    python tools/bench/sizes.py --read            # the table and the plot again

10, 20, 30 and 50 % of the blocks' parameters go. Everyone calibrates on the same 64 × 256 tokens of `docs` and is
measured on the same 32 × 256 of `manuals`, another kind of prose. FLAP, LLM-Pruner, ShortGPT (`layers-25`) and the like
are their published formulas as recipes; Torch-Pruning is itself; SliceGPT is written anew in `peers/`. The plot is
docs/sizes.png.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import smollm2
import torch
from apart import ROOT, compress, table
from peers import slicegpt, torch_pruning_llama
from sizes_plot import draw
from torch import nn
from transformers import AutoTokenizer, LlamaForCausalLM

import compress as package
from compress.evaluate.read import read_all
from compress.inputs.text import batches
from compress.metrics.change import ERRORS
from compress.metrics.kind import Metric
from compress.recipe import Calibrate
from compress.recipe.part import Part
from compress.tasks.choose import task_of

FILE, PLOT = ROOT / "docs" / "sizes.json", ROOT / "docs" / "sizes.png"
SHARES = (0.2, 0.5, 0.3, 0.1)
"""In the order in which they are run."""
LENGTH, SAMPLES = 256, 64
CALIBRATION, PROSE = ("docs", SAMPLES), ("manuals", 32)
PUBLISHED = ("flap-20", "llm-pruner-20", "layers-25", "cfsp-20", "flap-uniform-20", "taylor-20", "amp-30")
OURS = ("channels-20", "measured-20", "obs-50", "exact-flops-30")
OTHERS = ("sequential-30", "prunenet-30", "wanda-sp-20", "activation-20", "lrp-30", "hidden-10")
DATALESS = ("magnitude-20", "random-20")
REPAIRED = ("cfsp-20", "flap-20", "flap-uniform-20")
TAYLOR = "channels by taylor, not repaired"
"""What Torch-Pruning does, by this package."""
Maker = Callable[[float, Path], nn.Module]
"""Makes the model with a share of its blocks gone, in a folder or in memory."""


def auto(share: float, out: Path) -> nn.Module:
    """What the command makes when it is told nothing else."""
    compress("auto", smollm2.folder(), out, "--remove", f"{share:.0%}", "--no-evaluate", "-q")
    return package.load(out)


def recipe(share: float, out: Path, name: str, settings: Sequence[str] = ()) -> nn.Module:
    """What a shipped recipe makes at this size."""
    given = [f"calibrate.samples={SAMPLES}", f"calibrate.length={LENGTH}", "steps.0.remove=null", "steps.0.until=null"]
    given += [f"steps.0.keep={{params: {1 - share * _blocks():.2%}}}", *settings]
    compress(name, smollm2.folder(), out, "--no-evaluate", "-q", *(word for one in given for word in ("--set", one)))
    return package.load(out)


def peer(share: float, _: Path, prune: Callable[..., None]) -> nn.Module:
    """What another program makes of the model in memory."""
    model = LlamaForCausalLM.from_pretrained(smollm2.folder(), dtype=torch.float32).eval()
    prune(model, [batch["input_ids"] for batch in _tokens(*CALIBRATION)], share)
    return model


def methods() -> Iterator[tuple[str, Maker]]:
    """All by name."""
    yield "auto", auto
    for criterion in torch_pruning_llama.CRITERIA:
        pruned = partial(torch_pruning_llama.prune, criterion=criterion, heads=False)
        yield f"Torch-Pruning, channels by {criterion}", partial(peer, prune=pruned)
    pruned = partial(torch_pruning_llama.prune, criterion="taylor", heads=True)
    yield "Torch-Pruning, heads and channels", partial(peer, prune=pruned)
    yield "SliceGPT", partial(peer, prune=slicegpt.prune)
    for name in PUBLISHED[:3] + OURS[:1]:
        yield name, partial(recipe, name=name)
    for name in REPAIRED:
        yield f"{name}, least squares", partial(recipe, name=name, settings=("steps.0.repair=least_squares",))
    same = ("steps.0.by=taylor", "steps.0.repair=null", "steps.0.round=1")
    yield TAYLOR, partial(recipe, name="channels-20", settings=same)
    for name in OURS[1:] + PUBLISHED[3:] + OTHERS + DATALESS:
        yield name, partial(recipe, name=name)


@cache
def _blocks() -> float:
    """The share of the model's parameters that lies in its blocks."""
    model = _dense()
    inside = sum(one.numel() for one in model.model.layers.parameters())
    return inside / sum(one.numel() for one in model.parameters())


@cache
def _dense() -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(smollm2.folder(), dtype=torch.float32).eval()


@cache
def _tokens(data: str, samples: int) -> list[dict[str, Any]]:
    asked = Calibrate(data=Part(data), samples=samples, length=LENGTH)
    return batches(asked, AutoTokenizer.from_pretrained(smollm2.folder()), _dense().config)[0]


@cache
def _metric() -> Metric[Any]:
    return task_of(_dense()).metric(_tokens(*PROSE)[0])


@cache
def _read() -> Any:
    return read_all(_dense(), _metric(), _tokens(*PROSE))


def measured(model: nn.Module) -> tuple[float, float]:
    """Perplexity as a multiple of the dense model's, and its standard error."""
    change = _metric().quality(read_all(model, _metric(), _tokens(*PROSE)), _read()).changes["perplexity"]
    return change.value, (change.high - change.low) / (2 * ERRORS)


def run(name: str, make: Maker, share: float) -> dict[str, Any]:
    """One row. A size that a method cannot reach is a row that says so."""
    row: dict[str, Any] = {"method": name, "share": share}
    with tempfile.TemporaryDirectory() as folder:
        try:
            model = make(share, Path(folder) / "out")
        except (SystemExit, ValueError, RuntimeError) as error:
            return {**row, "failed": str(error).strip().splitlines()[0]}
        row["params"] = sum(one.numel() for one in {id(one): one for one in model.parameters()}.values())
        row["ratio"], row["error"] = measured(model)
    del model
    gc.collect()  # Torch-Pruning's graph holds its model in cycles
    return row


def show(rows: list[dict[str, Any]]) -> None:
    """The table, best first at 20 %, and the plot."""
    names = list(dict.fromkeys(row["method"] for row in rows))
    at = {(row["method"], row["share"]): row for row in rows if "ratio" in row}
    lines = []
    for name in sorted(names, key=lambda name: at[name, 0.2]["ratio"] if (name, 0.2) in at else float("inf")):
        found = [at.get((name, share)) for share in sorted(SHARES)]
        lines.append([name, *(f"{one['ratio']:.2f} ± {one['error']:.2f}" if one else "–" for one in found)])
    table(["× the dense perplexity", *(f"{share:.0%} gone" for share in sorted(SHARES))], lines)
    for row in rows:
        if "failed" in row:
            print(f"\n{row['method']}, {row['share']:.0%}: {row['failed']}")
    draw(rows, PLOT)


def main(*words: str) -> None:
    """Run what is missing, of the named methods where some are, and show all there is."""
    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = json.loads(FILE.read_text()) if FILE.exists() else []
    if words != ("--read",):
        made = dict(methods())
        if unknown := [word for word in words if not any(name.startswith(word) for name in made)]:
            sys.exit(f"{unknown[0]}: no such method; choose from {', '.join(made)}")
        wanted = [name for name in made if not words or name.startswith(words)]
        if any("Torch" in name for name in wanted) and find_spec("torch_pruning") is None:
            sys.exit("Torch-Pruning is not there; how to install it stands at the top of this file")
        for share in SHARES:
            for name in wanted:
                if not any(row["method"] == name and row["share"] == share for row in rows):
                    rows.append(run(name, made[name], share))
                    print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
                    FILE.write_text(json.dumps(rows, indent=1) + "\n")
    show(rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
