"""Videos: frames of pixels, for models of one tower (VideoMAE, TimeSformer, ViViT, V-JEPA 2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from torch import nn

from compress.data.cut import cut
from compress.data.films import film_samples
from compress.data.images import preparation
from compress.errors import InputError
from compress.inputs.ask import main_input, options, takes
from compress.inputs.batch import Batch
from compress.inputs.layout import PIXELS, USUAL, pair
from compress.inputs.pixels import FRAMES
from compress.inputs.tried import Tried, Way
from compress.recipe.part import Part
from compress.registry import inputs

if TYPE_CHECKING:
    from compress.checkpoint.open import Checkpoint
    from compress.recipe.schema import Calibrate

VIDEOS = "pixel_values_videos"

SEVERAL = 2
"""Frames of a video for a model that takes any number of them."""


@inputs.add("video")
class Video(Tried):
    """Frames `[rows, frames, channels, height, width]`."""

    noun = "patches"
    data = Part("photos")

    @classmethod
    def fits(cls, model: nn.Module, config: Any) -> bool:
        """Models that read videos first, or pixels where their config counts frames, and no text."""
        main = main_input(model)
        return not takes(model, "input_ids") and (
            main == VIDEOS or (main == PIXELS and options(config, *FRAMES) is not None)
        )

    def ways(self) -> Iterator[Way]:
        """Frames in front of the channels; a mask of nothing hidden where the forward needs one."""
        name = self._name
        channels = options(self.config, "num_channels", "in_channels", "in_chans") or 3
        height, width = pair(options(self.config, "image_size", "crop_size", "img_size") or USUAL)
        yield Way({name: (options(self.config, *FRAMES) or SEVERAL, channels, height, width)})

    def batches(self, calibrate: Calibrate, checkpoint: Checkpoint, seed: int = 0) -> tuple[list[Batch], str]:
        """Pictures that the frame moves over, prepared as `preprocessor_config.json` says."""
        if calibrate.template is not None:
            raise InputError(f"calibrate.template: {calibrate.template}: the model reads videos; leave it out")
        frames, channels, height, width = self.way.sizes[self._name]
        data = calibrate.data or self.data
        if getattr(data, "name", data) == "random":
            return cut(self.way.draw(calibrate.samples, seed), calibrate.batch)
        prepare = preparation(checkpoint.folder, (height, width), channels, fixed=True)
        return cut({self._name: film_samples(data, calibrate.samples, frames, prepare, seed)}, calibrate.batch)

    def held_out(self, calibrated: Iterable[Part | str | None]) -> Part:
        """The photos that calibration does not see."""
        return Part("photos", {"split": "test"})

    def length(self, batch: Batch) -> int:
        """Patches of a frame, times the frames."""
        frames, _, height, width = self.way.sizes[self._name]
        down, across = pair(_spatial(options(self.config, "patch_size", "tubelet_size") or 1))
        return frames * (height // down) * (width // across)

    @property
    def _name(self) -> str:
        return VIDEOS if takes(self.model, VIDEOS) and not takes(self.model, PIXELS) else PIXELS


def _spatial(size: Any) -> Any:
    """The last two of a patch along time, height and width."""
    return size[-2:] if isinstance(size, list | tuple) else size
