"""EfficientNet-lite0: on how many crops of other photos it sees the same as the dense model."""

from __future__ import annotations

import efficientnet
from torch import nn
from torch.nn.functional import cross_entropy

from compress.data.images import Preparation
from compress.tasks.distance import kl_divergence
from subjects.subject import Score, Subject, answers, paired, photos

CALIBRATION, MEASURED = 64, 96


def subject() -> Subject:
    """The model, crops with the classes that it sees in them, and the agreement with it."""
    dense = efficientnet.trained()
    prepare = Preparation((efficientnet.SIZE,) * 2, (0.5,) * 3, (0.5,) * 3)
    known, others = photos("train", CALIBRATION, prepare), photos("test", MEASURED, prepare)
    right = answers(dense, others)

    def measure(model: nn.Module) -> Score:
        found = answers(model, others)
        same = (found.argmax(1) == right.argmax(1)).float()
        return Score(same, {"KL": float(kl_divergence(right, found).mean())})

    blocks = range(1, len(dense.blocks))
    inner = [f"blocks.{i}.{part}.convolution" for i in blocks for part in ("expand", "depthwise")]
    targets = answers(dense, known).argmax(1)
    measured = f"agreement on {MEASURED} crops; KL divergence in nats"
    return Subject(dense, list(paired(known, targets)), cross_entropy, measure, measured, inner)
