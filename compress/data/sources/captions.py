"""Photographs that come with a package, and what is to be seen on them, without a network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from torch import Tensor

from compress.data.sources.photos import CALIBRATE, KEPT_BACK, photos
from compress.registry import sources

TEXTS = {
    "astronaut": (
        "A smiling woman in an orange space suit stands in front of a flag and a model of the space shuttle. She "
        "has short curly hair, and holds her helmet under one arm. Patches with the emblem of the agency and of "
        "her mission are sewn onto the suit. It is a formal portrait, lit evenly from the front, as astronauts "
        "have them taken before a flight."
    ),
    "brick": (
        "A wall of bricks, seen straight from the front and filling the whole picture. The bricks are laid in "
        "even rows, each shifted by half a brick against the row below. Their faces are rough and worn, and the "
        "mortar between them is lighter than the stone. Nothing else is to be seen: no window, no door and no "
        "shadow."
    ),
    "camera": (
        "A man in a long dark coat looks through a camera on a tripod. He stands on a lawn and bends forward a "
        "little, one hand at the lens. Behind him, far away and in haze, are tall buildings and the sky. The "
        "picture is black and white, and for decades it has been used to test programs that process images."
    ),
    "coins": (
        "About two dozen old coins lie in rows on a dark cloth. Each is round and worn, with the head of a ruler "
        "or a figure on it, and some are broken at the edge. The light falls from one side, so that the "
        "background is brighter at the top than at the bottom. They are Greek coins from Pompeii, photographed "
        "for a museum."
    ),
    "grass": (
        "Grass seen from above, so near that single blades can be told apart. They lie in every direction, long "
        "and thin, some bright in the light and others dark in the shadow beneath. There is no path, no flower "
        "and no earth to be seen. The picture is grey all over, and is used as an example of a natural texture."
    ),
    "hubble_deep_field": (
        "Hundreds of galaxies on the black of the night sky. A few are large enough to show arms and a bright "
        "centre; most are small smudges of white, yellow, blue and red. A single star in front of them has the "
        "four spikes that the telescope's mirrors make. The light of the faintest galaxies has been under way for "
        "more than ten billion years."
    ),
    "page": (
        "A page of a printed book, photographed under uneven light. Lines of black text run across the paper, and "
        "one side of the page lies in a shadow that makes it almost as dark as the letters. The words tell of how "
        "regions of an image are found. Such a picture shows why one threshold does not part ink from paper "
        "everywhere."
    ),
    "retina": (
        "The back of a human eye, seen through the pupil. On an orange disc before a black background branch the "
        "blood vessels, thin and dark red, which all come from one bright yellow spot: the place where the optic "
        "nerve leaves. Near the middle is a darker area with hardly any vessel, with which we see most sharply."
    ),
    "rocket": (
        "A white rocket lifts off at night. Flames as bright as the sun come from its engines and light the smoke "
        "that billows on both sides of the pad. Beside it stand the towers that held it, and four tall masts "
        "against lightning. The sky behind is dark blue, and the ground in front is black."
    ),
    "chelsea": (
        "The face of a tabby cat, very close. Its fur is brown and orange with dark stripes on the forehead, its "
        "eyes are green and half open, its nose is pink. White whiskers stand out on both sides. The cat does not "
        "look into the camera but a little past it, calm and rather sleepy."
    ),
    "coffee": (
        "A cup of coffee on a wooden table, seen from above and from the side. The cup is white and stands on a "
        "saucer of the same colour, on which a spoon lies. The coffee is black with a ring of light foam, and "
        "steam can almost be felt. The boards of the table are reddish brown, and warm light falls on them."
    ),
    "gravel": (
        "Small stones that cover the ground, seen straight from above. They are of many sizes and shapes, some "
        "round and others with sharp edges, and lie so close that no earth is to be seen between them. The "
        "picture is grey, with deep shadows between the stones. It is an example of a rough natural texture."
    ),
    "moon": (
        "The surface of the moon, grey and full of craters. Some are large, with steep walls that throw long "
        "shadows, and small ones lie between and inside them. The light comes from the side, so that the relief "
        "can be seen clearly. There is little contrast in the picture, and no colour at all."
    ),
    "immunohistochemistry": (
        "A thin slice of tissue under a microscope, stained so that its parts can be told apart. The nuclei of "
        "the cells are blue; where a certain protein is found, the tissue is brown. Round glands with an opening "
        "in the middle lie side by side, and pale tissue fills the space between them. Doctors look for disease "
        "on such slides."
    ),
}


@sources.add("captions", gives="captions")
def captions(*, split: Literal["train", "test"] = "train") -> Iterator[tuple[Tensor, str]]:
    """The sample images of scikit-image, each with a paragraph on what it shows; `test` are those that `train` keeps
    back.

    Raises InputError where scikit-image is not installed.
    """
    names = CALIBRATE if split == "train" else KEPT_BACK
    yield from zip(photos(split=split), (TEXTS[name] for name in names), strict=True)
