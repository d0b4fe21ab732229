"""Pictures whose contents are known: a written digit and a few filled shapes at free places before a faded photograph.

The split `test` takes digits, photographs and parts of the texture photographs that `train` never shows.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import skimage.data
from PIL import Image, ImageChops, ImageDraw, ImageEnhance
from sklearn.datasets import load_sample_image

from compress.data.sources.digits import digits

Split = Literal["train", "test"]

SIDE, PATCH = 154, 14
"""Pixels of a picture's side and of a patch's: 11 × 11 patches, so that every n-th of them runs over all columns."""
GRID = SIDE // PATCH
DIGIT = 50
"""Pixels of a digit's side."""
RADII = (14.0, 18.0)
"""Of shapes, in pixels."""
GAP = 3
"""Pixels at least between two objects, and between one and the picture's border."""

COLORS = {
    "red": (225, 30, 30),
    "green": (30, 190, 50),
    "blue": (40, 70, 235),
    "yellow": (240, 225, 40),
    "purple": (150, 40, 190),
    "orange": (250, 140, 20),
}
MATERIALS = {"brick": (205, 120, 95), "grass": (150, 175, 105), "gravel": (165, 165, 175)}
"""Gray photographs of textures, each in a tint."""
TEXTURED = 0.4
"""The share of shapes filled with a material instead of a colour."""
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PHOTOS = {"train": ("astronaut", "coffee", "rocket", "china.jpg"), "test": ("chelsea", "flower.jpg", "coins")}

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Thing:
    """An object: its `name`, what fills it (or the word of a digit's number), its center and half its side, pixels."""

    name: str
    look: str
    x: float
    y: float
    radius: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom."""
        return self.x - self.radius, self.y - self.radius, self.x + self.radius, self.y + self.radius


@dataclass(frozen=True)
class Scene:
    """A picture, uint8 `[side, side, 3]`, that models cut into patches of `patch` pixels, and what it shows."""

    picture: np.ndarray
    things: tuple[Thing, ...]
    patch: int = PATCH

    @property
    def shapes(self) -> tuple[Thing, ...]:
        """All but the digit."""
        return tuple(thing for thing in self.things if thing.name != "digit")

    @property
    def grid(self) -> int:
        """Patches in a row."""
        return len(self.picture) // self.patch

    def coverage(self) -> np.ndarray:
        """`[things, patches]`: the share of every patch that lies in the box of every object."""
        edges = np.arange(self.grid) * self.patch

        def overlap(low: float, high: float) -> np.ndarray:
            return np.clip(np.minimum(edges + self.patch, high) - np.maximum(edges, low), 0, None) / self.patch

        boxes = [thing.box for thing in self.things]
        return np.stack([np.outer(overlap(y, v), overlap(x, u)).ravel() for x, y, u, v in boxes])


def scene(seed: int, split: Split = "train") -> Scene:
    """The picture of this number, the digit first; the splits share none."""
    draw = random.Random(f"{split} {seed}")
    radii = [DIGIT / 2, *(draw.uniform(*RADII) for _ in range(draw.randint(1, 4)))]
    places = _places(radii, draw)
    names = ["digit", *draw.sample(list(OUTLINES), len(radii) - 1)]
    image, things = _background(split, draw), []
    for name, radius, (x, y) in zip(names, radii, places, strict=True):
        fill, mask, look = _digit(split, draw) if name == "digit" else _shape(name, radius, split, draw)
        image.paste(fill, (round(x - radius), round(y - radius)), mask)
        things.append(Thing(name, look, x, y, radius))
    return Scene(np.asarray(image), tuple(things))


def _places(radii: list[float], draw: random.Random) -> list[tuple[float, float]]:
    """Centers, so that no boxes touch: drawn until they fit."""
    while True:
        places: list[tuple[float, float]] = []
        for radius in radii:
            low, high = radius + GAP, SIDE - radius - GAP
            for _ in range(50):
                x, y = draw.uniform(low, high), draw.uniform(low, high)
                if all(
                    max(abs(x - u), abs(y - v)) > radius + other + GAP
                    for (u, v), other in zip(places, radii, strict=False)
                ):
                    places.append((x, y))
                    break
        if len(places) == len(radii):
            return places


def _background(split: Split, draw: random.Random) -> Image.Image:
    """A crop of a photograph, gray and faded, with some strokes in gray over it."""
    photo = _photo(draw.choice(PHOTOS[split]))
    side = draw.randrange(SIDE, min(photo.size) + 1)
    left, top = draw.randint(0, photo.width - side), draw.randint(0, photo.height - side)
    crop = photo.resize((SIDE, SIDE), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
    image = Image.blend(crop, Image.new("RGB", crop.size, (draw.randrange(90, 170),) * 3), 0.45)
    pen = ImageDraw.Draw(image)
    for _ in range(draw.randint(5, 10)):
        x, y = draw.randrange(SIDE), draw.randrange(SIDE)
        line = (x, y, x + draw.randint(-14, 14), y + draw.randint(-14, 14))
        pen.line(line, (draw.randrange(20, 230),) * 3, draw.randint(1, 3))
    return image


@cache
def _photo(name: str) -> Image.Image:
    """A sample photograph of scikit-image or, by a file's name, of scikit-learn, in gray."""
    pixels: Any = load_sample_image(name) if "." in name else getattr(skimage.data, name)()
    return Image.fromarray(pixels).convert("L").convert("RGB")


@cache
def _digits(split: Split) -> list[tuple[np.ndarray, int]]:
    """Written digits, uint8 `[8, 8]`, and their numbers."""
    return [(image[..., 0].numpy(), number) for image, number in digits(split=split)]


def _digit(split: Split, draw: random.Random) -> tuple[Image.Image, None, str]:
    """A tile with a written digit, white on black."""
    small, number = draw.choice(_digits(split))
    large = Image.fromarray(small).resize((DIGIT, DIGIT), Image.Resampling.BICUBIC)
    crisp = large.point([min(255, max(0, 4 * (level - 110) + 128)) for level in range(256)])
    return crisp.convert("RGB"), None, NUMBERS[number]


def _shape(name: str, radius: float, split: Split, draw: random.Random) -> tuple[Image.Image, Image.Image, str]:
    """What fills a shape, its mask and the word for the filling."""
    side = round(2 * radius)
    corners = [((x + 1) * 2 * side, (y + 1) * 2 * side) for x, y in OUTLINES[name]()]
    large = Image.new("L", (4 * side, 4 * side))
    ImageDraw.Draw(large).polygon(corners, 255)
    mask = large.resize((side, side), Image.Resampling.BOX)
    if draw.random() < TEXTURED:
        look = draw.choice(list(MATERIALS))
        fill = _texture(look, side, split, draw)
        ImageDraw.Draw(fill).line([(x / 4, y / 4) for x, y in (*corners, corners[0])], (255, 255, 255), 3)
        return fill, mask, look
    look = draw.choice(list(COLORS))
    return Image.new("RGB", mask.size, COLORS[look]), mask, look


def _texture(name: str, side: int, split: Split, draw: random.Random) -> Image.Image:
    """A crop of a texture photograph at half its size: its left part for `train`, its right part for `test`."""
    photo = _photo(name)
    reach = 2 * side
    low, high = (0, photo.width * 2 // 3) if split == "train" else (photo.width * 2 // 3, photo.width)
    left, top = draw.randint(low, high - reach), draw.randint(0, photo.height - reach)
    crop = photo.resize((side, side), Image.Resampling.BOX, (left, top, left + reach, top + reach))
    return ImageChops.multiply(ImageEnhance.Brightness(crop).enhance(1.5), Image.new("RGB", crop.size, MATERIALS[name]))


def _around(corners: int, *radii: float) -> Callable[[], Points]:
    """Corners around the center, the first at the top, at these distances in turn; a half side is 1."""
    return lambda: [
        (
            radii[i % len(radii)] * math.sin(2 * math.pi * i / corners),
            -radii[i % len(radii)] * math.cos(2 * math.pi * i / corners),
        )
        for i in range(corners)
    ]


def _cross() -> Points:
    third = 0.33
    quarter = [(-third, -1.0), (third, -1.0), (third, -third)]
    turned = [quarter]
    for _ in range(3):
        turned.append([(-y, x) for x, y in turned[-1]])
    return [point for part in turned for point in part]


OUTLINES: dict[str, Callable[[], Points]] = {
    "circle": _around(48, 1.0),
    "square": lambda: [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    "triangle": lambda: [(0.0, -1.0), (1.0, 0.85), (-1.0, 0.85)],
    "star": _around(10, 1.0, 0.42),
    "cross": _cross,
}
"""Corners of the shapes, in halves of their sides from their centers."""
