"""The DINOv2-S-shaped transformer: how like its embeddings of other photos are, and digits by a linear probe."""

from __future__ import annotations

from itertools import islice

import dinov2_small
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, interpolate
from transformers import Dinov2Model

from compress.data.images import preparation
from compress.data.sources.digits import digits
from compress.data.sources.photos import CALIBRATE
from subjects.subject import BATCH, Score, Subject, paired, photos

SIZE, CALIBRATION, MEASURED = 112, 64, 64
"""Pixels of a side: less than it was trained on, but what one processor core takes."""
SIDE, DIGITS = 42, 200
"""Pixels of a digit's side, and how many the probe is fitted to; it is measured on as many others."""


@torch.no_grad()
def embeddings(model: nn.Module, pixels: Tensor) -> Tensor:
    """Of the class token, `[images, width]`."""
    return torch.cat([model(part).last_hidden_state[:, 0] for part in pixels.split(BATCH)])


def subject() -> Subject:
    """The model, crops with the photo that each is of, and the similarity to its embeddings.

    The loss that gradients are of is a probe's that was fitted to tell these photos apart.
    """
    folder = dinov2_small.folder()
    dense = Dinov2Model.from_pretrained(folder).eval()
    prepare = preparation(folder, (SIZE,) * 2, 3, fixed=True)
    known, others = photos("train", CALIBRATION, prepare), photos("test", MEASURED, prepare)
    which = torch.arange(CALIBRATION) % len(CALIBRATE)
    told = _probe(embeddings(dense, known), which)
    right = embeddings(dense, others)
    fitted, asked = (
        (prepare(torch.stack([_large(image) for image, _ in found])), torch.tensor([number for _, number in found]))
        for found in (list(islice(digits(split=split), DIGITS)) for split in ("train", "test"))
    )

    def loss(output: object, photo: Tensor) -> Tensor:
        return cross_entropy(output.last_hidden_state[:, 0] @ told.coef_ + told.intercept_, photo)  # pyright: ignore

    def measure(model: nn.Module) -> Score:
        probe = LogisticRegression(max_iter=300).fit(embeddings(model, fitted[0]), fitted[1])
        hits = probe.score(embeddings(model, asked[0]), asked[1])
        return Score(cosine_similarity(embeddings(model, others), right), {"digits right": float(hits)})

    inner = [f"encoder.layer.{i}.mlp.fc1" for i in range(dense.config.num_hidden_layers)]
    measured = f"cosine of the embeddings of {MEASURED} crops; digits that a linear probe reads"
    return Subject(dense, list(paired(known, which)), loss, measure, measured, inner)


def _probe(inputs: Tensor, classes: Tensor) -> LogisticRegression:
    """A linear classifier, with its weights `[width, classes]` as tensors."""
    found = LogisticRegression(max_iter=300).fit(inputs, classes)
    found.coef_, found.intercept_ = torch.tensor(found.coef_.T).float(), torch.tensor(found.intercept_).float()
    return found


def _large(image: Tensor) -> Tensor:
    """A digit `[8, 8, 3]`, uint8, as `[3, SIDE, SIDE]` of 0 to 1."""
    return interpolate(image.permute(2, 0, 1)[None].float() / 255, (SIDE, SIDE), mode="bilinear")[0]
