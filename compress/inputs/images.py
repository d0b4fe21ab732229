"""Images, as pixels: encoders of one tower (ViT, DINOv2, BEiT, ResNet)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from compress.data.classes import classified, has_classes, part_of
from compress.data.cut import cut
from compress.data.images import Preparation, image_samples, preparation
from compress.errors import InputError
from compress.graph.example import Example
from compress.inputs.ask import main_input, needs, options, refuses
from compress.inputs.batch import LABELS, Batch
from compress.inputs.kind import Inputs
from compress.inputs.layout import PIXELS, USUAL, pair
from compress.inputs.patching import wants_patches
from compress.inputs.pixels import FRAMES
from compress.recipe.part import Part
from compress.registry import inputs

if TYPE_CHECKING:
    from compress.checkpoint.open import Checkpoint
    from compress.recipe.schema import Calibrate
LABELLED = 8
"""Images of a batch with labels."""


@inputs.add("images")
class Images(Inputs):
    """Pixels `[rows, channels, height, width]`, or pairs of images `[rows, 2, channels, height, width]`."""

    noun = "patches"
    data = Part("photos")

    @classmethod
    def fits(cls, model: nn.Module, config: Any) -> bool:
        """Models that read pixels first, and nothing beside them; those of single pictures, not of films."""
        alone = main_input(model) == PIXELS and set(needs(model)) <= {PIXELS}
        return alone and options(config, *FRAMES) is None and not wants_patches(model)

    def example(self) -> Example:
        """Two images of the size that the model was made for."""
        return Example(self._given(torch.empty(2, *self._shape, device="meta")), {"batch": (PIXELS, 0)})

    def check(self, rows: int = 2, seed: int = 0) -> Batch:
        """Noise."""
        return self._given(torch.randn(rows, *self._shape, generator=torch.Generator().manual_seed(seed)))

    def odd(self, device: torch.device | str = "meta") -> Batch:
        """Three images; their size is the model's, as many take no other."""
        return self._given(torch.zeros(3, *self._shape, device=device))

    def batches(self, calibrate: Calibrate, checkpoint: Checkpoint, seed: int = 0) -> tuple[list[Batch], str]:
        """Crops of the images, prepared as `preprocessor_config.json` says; of a source with classes whole images and
        these as labels. `calibrate.length` means nothing here."""
        if calibrate.template is not None:
            raise InputError(f"calibrate.template: {calibrate.template}: the model reads images; leave it out")
        prepare, data = self._preparation(checkpoint), calibrate.data or self.data
        if isinstance(data, Part) and has_classes(data):
            images, classes = classified(data, calibrate.samples, prepare, self.config.id2label)
            return cut({**self._given(images), LABELS: classes}, calibrate.batch)
        return cut(self._given(image_samples(data, calibrate.samples, prepare, seed)), calibrate.batch)

    def labelled(self, file: Path | None, checkpoint: Checkpoint, *, samples: int, length: int) -> list[Batch]:
        """Images of `digits` or of a folder with a folder for each class; see `compress.data.classes`."""
        images, classes = classified(part_of(file), samples, self._preparation(checkpoint), self.config.id2label)
        return cut({PIXELS: images, LABELS: classes}, LABELLED)[0]

    def held_out(self, calibrated: Iterable[Part | str | None]) -> Part:
        """The photos that calibration does not see."""
        return Part("photos", {"split": "test"})

    def length(self, batch: Batch) -> int:
        """Patches of an image; pixels where the model has none."""
        height, width = batch[PIXELS].shape[-2:]
        down, across = pair(options(self.config, "patch_size") or 1)
        return (height // down) * (width // across)

    def _given(self, images: torch.Tensor) -> Batch:
        """The images, or each with itself moved by a quarter of its width where the model compares two."""
        moved = images.roll(images.shape[-1] // 4, -1)
        return {PIXELS: torch.stack([images, moved], 1) if self._compares else images}

    @cached_property
    def _compares(self) -> bool:
        """Whether the model takes pairs, and no single images."""
        plain = torch.empty(2, *self._shape, device="meta")
        pairs = torch.stack([plain, plain], 1)
        return refuses(self.model, {PIXELS: plain}) and not refuses(self.model, {PIXELS: pairs})

    def _preparation(self, checkpoint: Checkpoint) -> Preparation:
        channels, height, width = self._shape
        return preparation(checkpoint.folder, (height, width), channels)

    @property
    def _shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        height, width = pair(options(self.config, "image_size") or USUAL)
        return options(self.config, "num_channels") or 3, height, width
