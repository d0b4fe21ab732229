"""What a recipe may ask for beside the checkpoint."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from compress.recipe.mistake import mistake

Axis = Literal["batch", "sequence"]
OLDEST = 18
"""The lowest opset that PyTorch's exporter writes."""


class Onnx(BaseModel):
    """An ONNX graph of the pruned model, in OUT/onnx.

    `dynamic` are the axes of any size; the others are fixed to `batch` and `length`. With `cache` a decoder takes and
    gives keys and values, so that it can generate. ONNX Runtime's results may differ from torch's by `tolerance`,
    times the largest value where that is above one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    opset: Annotated[int, Field(ge=OLDEST, strict=True)] | None = None
    dynamic: list[Axis] = ["batch", "sequence"]
    batch: Annotated[int, Field(ge=1, strict=True)] = 1
    length: Annotated[int, Field(ge=2, strict=True)] = 128
    cache: bool = True
    tolerance: Annotated[float, Field(gt=0)] = 1e-4

    @field_validator("dynamic")
    @classmethod
    def _once(cls, axes: list[Axis]) -> list[Axis]:
        if len(set(axes)) < len(axes):
            raise mistake(f"an axis is named twice in {axes}")
        return axes


def _named(value: Any) -> Any:
    return {value: {}} if isinstance(value, str) else value


class Export(BaseModel):
    """`export: onnx`, or `export: {onnx: {...}}` with options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    onnx: Onnx


Exports = Annotated[Export, BeforeValidator(_named)]
