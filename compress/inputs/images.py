"""Images, as pixels: encoders of one tower (ViT, DINOv2, BEiT, ResNet)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from compress.data.cut import cut
from compress.data.images import image_samples, preparation
from compress.errors import InputError
from compress.graph.example import Example
from compress.inputs.batch import Batch
from compress.inputs.kind import Inputs
from compress.recipe.part import Part
from compress.registry import inputs

if TYPE_CHECKING:
    from compress.checkpoint.open import Checkpoint
    from compress.recipe.schema import Calibrate

PIXELS = "pixel_values"


@inputs.add("images")
class Images(Inputs):
    """Pixels `[rows, channels, height, width]`."""

    noun = "patches"
    data = Part("photos")

    @classmethod
    def fits(cls, model: nn.Module, config: Any) -> bool:
        """Of a model with several towers it is the text's ids that are read first."""
        return getattr(model, "main_input_name", None) == PIXELS

    def example(self) -> Example:
        """Two images of the size that the model was made for."""
        return Example({PIXELS: torch.empty(2, *self._shape, device="meta")}, {"batch": (PIXELS, 0)})

    def check(self, rows: int = 2, seed: int = 0) -> Batch:
        """Noise."""
        return {PIXELS: torch.randn(rows, *self._shape, generator=torch.Generator().manual_seed(seed))}

    def odd(self, device: torch.device | str = "meta") -> Batch:
        """Three images; their size is the model's, as many take no other."""
        return {PIXELS: torch.zeros(3, *self._shape, device=device)}

    def batches(self, calibrate: Calibrate, checkpoint: Checkpoint, seed: int = 0) -> tuple[list[Batch], str]:
        """Crops of the images, prepared as `preprocessor_config.json` says; `calibrate.length` means nothing here."""
        if calibrate.template is not None:
            raise InputError(f"calibrate.template: {calibrate.template}: the model reads images; leave it out")
        channels, *size = self._shape
        prepare = preparation(checkpoint.folder, (size[0], size[1]), channels)
        return cut(
            {PIXELS: image_samples(calibrate.data or self.data, calibrate.samples, prepare, seed)}, calibrate.batch
        )

    def held_out(self, calibrated: Iterable[Part | str | None]) -> Part:
        """The photos that calibration does not see."""
        return Part("photos", {"split": "test"})

    def length(self, batch: Batch) -> int:
        """Patches of an image; pixels where the model has none."""
        height, width = batch[PIXELS].shape[-2:]
        down, across = _pair(getattr(self.config, "patch_size", None) or 1)
        return (height // down) * (width // across)

    @property
    def _shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        height, width = _pair(getattr(self.config, "image_size", None) or 224)
        return getattr(self.config, "num_channels", 3), height, width


def _pair(size: Any) -> tuple[int, int]:
    return (size[0], size[1]) if isinstance(size, list | tuple) else (size, size)
