"""Videos and text together: pairs of encoders."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from compress.inputs.ask import options, takes
from compress.inputs.image_text import ImageText
from compress.inputs.layout import PIXELS, USUAL, Layout, pair
from compress.inputs.pixels import FRAMES, Film
from compress.inputs.video import SEVERAL, VIDEOS
from compress.registry import inputs


@inputs.add("video_text")
class VideoText(ImageText):
    """A video that does not move for each text, and token ids `[rows, length]`."""

    medium, main = "video", VIDEOS

    @classmethod
    def fits(cls, model: nn.Module, config: Any) -> bool:
        """Models that take both, and no images."""
        return super().fits(model, config) and not takes(model, PIXELS)

    def layouts(self, small: bool) -> Iterator[Layout]:
        vision = getattr(self.config, "vision_config", self.config)
        size = pair(options(vision, "image_size", "crop_size", "img_size") or USUAL)
        yield Film((options(vision, "num_channels") or 3, *size), options(vision, *FRAMES) or SEVERAL, VIDEOS)
