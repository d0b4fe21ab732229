"""What a recipe may say under `export: onnx`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from compress.recipe.mistake import mistake

Axis = Literal["batch", "sequence"]
OLDEST = 18
"""The lowest opset that PyTorch's exporter writes."""


def _axes(value: Any) -> Any:
    """`batch,sequence` and `none`, as they are written in a command."""
    if isinstance(value, str):
        return [] if value == "none" else [name.strip() for name in value.split(",")]
    return value


class OnnxSettings(BaseModel):
    """An ONNX graph of the pruned model, in OUT/onnx."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    opset: Annotated[int, Field(ge=OLDEST, strict=True)] | None = Field(
        default=None, description="Version of ONNX's operators; the exporter's newest without."
    )
    dynamic: Annotated[list[Axis], BeforeValidator(_axes)] = Field(
        default=["batch", "sequence"],
        description="Axes of any size; the others are fixed to `batch` and `length`. `none` fixes both.",
    )
    batch: Annotated[int, Field(ge=1, strict=True)] = Field(
        default=1, description="Size of the batch where that axis is not dynamic."
    )
    length: Annotated[int, Field(ge=2, strict=True)] = Field(
        default=128, description="Tokens of a sequence where that axis is not dynamic."
    )
    cache: bool = Field(
        default=True, description="Whether a decoder takes and gives keys and values, as fast generation needs."
    )
    tolerance: Annotated[float, Field(gt=0)] = Field(
        default=1e-4,
        description="The largest difference from PyTorch that passes, times the largest value where that is above one.",
    )

    @field_validator("dynamic")
    @classmethod
    def _once(cls, axes: list[Axis]) -> list[Axis]:
        if len(set(axes)) < len(axes):
            raise mistake(f"an axis is named twice in {axes}")
        return axes
