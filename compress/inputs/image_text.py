"""Images and text together: models that write about images, and pairs of encoders."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from compress.data.captions import captioned
from compress.data.cut import cut
from compress.data.images import preparation
from compress.errors import InputError
from compress.inputs.accompanied import Accompanied
from compress.inputs.batch import Batch
from compress.inputs.layout import PIXELS, Layout
from compress.inputs.pixels import layouts
from compress.recipe.part import Part
from compress.registry import inputs

if TYPE_CHECKING:
    from compress.checkpoint.open import Checkpoint
    from compress.recipe.schema import Calibrate


@inputs.add("image_text")
class ImageText(Accompanied):
    """An image for each text, in the layout that the model takes, and token ids `[rows, length]`, some of which stand
    for the image where the model's config names a token for that."""

    medium, main = "image", PIXELS
    source, kept_back = Part("captions"), Part("captions", {"split": "test"})

    def layouts(self, small: bool) -> Iterator[Layout]:
        return layouts(self.model, self.config, small=small)

    def batches(self, calibrate: Calibrate, checkpoint: Checkpoint, seed: int = 0) -> tuple[list[Batch], str]:
        """Images with what is written about them; `calibrate.length` tokens of text at most."""
        placed = self.placed(small=False) or self.placed()
        if placed is None:
            return super().batches(calibrate, checkpoint, seed)
        if calibrate.template is not None:
            raise InputError(f"calibrate.template: {calibrate.template}: the model reads images too; leave it out")
        data = calibrate.data or self.source
        channels, *size = placed.layout.size
        if getattr(data, "name", data) == "random":
            images = torch.randn(
                *(calibrate.samples, *placed.layout.size), generator=torch.Generator().manual_seed(seed)
            )
            rows, before = self.random_text(calibrate.samples, calibrate.length, seed), 0
        else:
            prepare = preparation(checkpoint.folder, (size[0], size[1]), channels, fixed=True)
            images, texts = captioned(data, calibrate.samples, prepare, seed)
            rows, before = self.text_rows(texts, calibrate.length, checkpoint)
        return cut(self.told(self.together(placed, images, rows, before=before), placed, rows, before), calibrate.batch)
