"""Images cut into patches beforehand: towers that take these and the size of their grid."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from compress.data.cut import cut
from compress.data.images import image_samples, preparation
from compress.data.vocabulary import text_config
from compress.errors import InputError, ModelError
from compress.graph.example import Example
from compress.inputs.ask import answer, needs, on_meta, takes
from compress.inputs.batch import Batch, given
from compress.inputs.kind import Inputs
from compress.inputs.layout import Layout
from compress.inputs.once import once
from compress.inputs.patching import patched, wants_patches
from compress.inputs.text import CHECKED, DECODER_IDS
from compress.inputs.tried import ODD_ROWS, ROWS
from compress.recipe.part import Part
from compress.registry import inputs

if TYPE_CHECKING:
    from compress.checkpoint.open import Checkpoint
    from compress.recipe.schema import Calibrate


@inputs.add("patches")
class Patched(Inputs):
    """Patches of images, in the layout that the forward takes, and what tells where they lie."""

    noun, data = "patches", Part("photos")

    @classmethod
    def fits(cls, model: nn.Module, config: Any) -> bool:
        """Models that read nothing else, and need to be told of the grid."""
        return wants_patches(model)

    @property
    def layout(self) -> Layout:
        """The first that the forward runs with. Raises ModelError where there is none."""
        return once(self, self._find)

    def example(self) -> Example:
        """Two images; they are real, as the forward looks at the size of their grids."""
        batch = given(self.check(ROWS))
        told = next((name for name in batch if not batch[name].is_floating_point()), next(iter(batch)))
        return Example(batch, {"batch": (told, 0)})

    def check(self, rows: int = 2, seed: int = 0) -> Batch:
        """Noise."""
        generator = torch.Generator().manual_seed(seed)
        images = torch.randn(rows, *self.layout.size, generator=generator)
        return {**self.layout.lay(images), **self._tokens(rows, generator)}

    def odd(self, device: torch.device | str = "meta") -> Batch:
        """Three images."""
        return self.check(ODD_ROWS)

    def batches(self, calibrate: Calibrate, checkpoint: Checkpoint, seed: int = 0) -> tuple[list[Batch], str]:
        """Crops of the images, prepared as `preprocessor_config.json` says."""
        if calibrate.template is not None:
            raise InputError(f"calibrate.template: {calibrate.template}: the model reads images; leave it out")
        layout = next(iter(patched(self.model, self.config, small=False)))
        layout = layout if type(layout) is type(self.layout) else self.layout
        channels, *size = layout.size
        prepare = preparation(checkpoint.folder, (size[0], size[1]), channels, fixed=True)
        images = image_samples(calibrate.data or self.data, calibrate.samples, prepare, seed)
        tokens = self._tokens(len(images), torch.Generator().manual_seed(seed))
        return cut({**layout.lay(images), **tokens}, calibrate.batch)

    def held_out(self, calibrated: Iterable[Part | str | None]) -> Part:
        """The photos that calibration does not see."""
        return Part("photos", {"split": "test"})

    def length(self, batch: Batch) -> int:
        """Patches of an image."""
        return next(iter(batch.values())).shape[1]

    def _tokens(self, rows: int, generator: torch.Generator) -> Batch:
        """Random tokens for the decoder, where there is one."""
        if not takes(self.model, DECODER_IDS):
            return {}
        vocabulary = text_config(self.config).vocab_size
        return {DECODER_IDS: torch.randint(1, vocabulary, (rows, CHECKED), generator=generator)}

    def _find(self) -> Layout:
        model, reasons = on_meta(self.model), list[str]()
        for layout in patched(self.model, self.config, small=True):
            try:
                answer(model, {**layout.lay(torch.randn(ROWS, *layout.size)), **self._tokens(ROWS, torch.Generator())})
                return layout
            except ModelError as error:
                reasons.append(str(error))
        raise ModelError(
            f"{type(self.model).__name__} needs {' and '.join(needs(self.model))}, and ran with none of what was "
            f"tried ({'; '.join(dict.fromkeys(reasons))}); put inputs that it takes into example_inputs.npz beside "
            "config.json"
        )
