"""CRAFT: whether it finds the words that the dense model finds, on other photos with words written over them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import craft
import matplotlib
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from compress.data.images import Preparation
from compress.data.sources.speech import SENTENCES
from subjects.subject import Score, Subject, answers, paired, photos

SIZE = 96
CALIBRATION, MEASURED = 24, 24
FONTS = ("DejaVuSans.ttf", "DejaVuSerif.ttf", "DejaVuSansMono-Bold.ttf")
"""matplotlib's."""
THRESHOLD = 0.4
"""Above it a map says that there is something: the published code's."""
OVERLAP = 0.5
"""Of two boxes, over what both cover, from which on they are one."""
Box = tuple[int, int, int, int]


def written(crops: Tensor, seed: int) -> Tensor:
    """Crops `[n, 3, height, width]` of 0 to 1 with one to three words on each, of any colour and size."""
    chance = random.Random(seed)
    vocabulary = " ".join(SENTENCES).split()
    found = []
    for crop in crops:
        image = Image.fromarray((crop.permute(1, 2, 0) * 255).byte().numpy())
        draw = ImageDraw.Draw(image)
        for line in range(chance.randint(1, 3)):
            file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / chance.choice(FONTS)
            place = chance.randint(0, SIZE // 2), line * SIZE // 3 + chance.randint(0, 8)
            colour = tuple(chance.randint(0, 255) for _ in range(3))
            draw.text(place, chance.choice(vocabulary), colour, ImageFont.truetype(file, chance.randint(14, 24)))
        found.append(craft.pixels(torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(SIZE, SIZE, 3)))
    return torch.cat(found)


def subject() -> Subject:
    """The model, where it sees text, and the words that it finds."""
    dense = craft.trained()
    plain = Preparation((SIZE,) * 2, (0.0,) * 3, (1.0,) * 3)
    known, others = (
        written(photos(split, count, plain), seed)
        for seed, (split, count) in enumerate((("train", CALIBRATION), ("test", MEASURED)))
    )
    right = answers(dense, others)
    words = [craft.words(maps) for maps in right]
    # The distance to its own maps would have no gradient at the dense model.
    targets = (answers(dense, known) > THRESHOLD).float()

    def measure(model: nn.Module) -> Score:
        found = answers(model, others)
        values = [agreement(craft.words(maps), own) for maps, own in zip(found, words, strict=True)]
        shared = torch.corrcoef(torch.stack([found.flatten(), right.flatten()]))[0, 1]
        return Score(torch.tensor(values), {"correlation": float(shared)})

    convolutions = [name for name, module in dense.named_modules() if isinstance(module, nn.Conv2d)]
    measured = f"F1 of the words in {MEASURED} crops; correlation of the maps"
    return Subject(dense, list(paired(known, targets)), mse_loss, measure, measured, convolutions[:-1], chained=True)


def agreement(found: Sequence[Box], right: Sequence[Box]) -> float:
    """F1 of the boxes, each of which is matched once; 1 where there are none in both."""
    free, hits = list(found), 0
    for box in right:
        overlaps = [_overlap(box, other) for other in free]
        if overlaps and max(overlaps) >= OVERLAP:
            hits += 1
            free.pop(overlaps.index(max(overlaps)))
    count = len(found) + len(right)
    return 2 * hits / count if count else 1.0


def _overlap(one: Box, other: Box) -> float:
    top, left, bottom, right = (f(a, b) for f, a, b in zip((max, max, min, min), one, other, strict=True))
    shared = max(bottom - top, 0) * max(right - left, 0)
    both = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - shared
    return shared / both
