"""The step that writes rules about visual tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, TypeAdapter, WithJsonSchema, WrapValidator

from compress.errors import InputError
from compress.files.shipped import names, shipped
from compress.recipe.mistake import mistake
from compress.recipe.source import Source
from compress.recipe.token_stage import Keep, Stage
from compress.registry import did_you_mean

FOLDER = "tokens/"
"""Where the recipes of presets lie among those that ship."""


def _given(value: Any, otherwise: Any) -> Any:
    """A preset's name or stages, so that mistakes are told of the one that was meant."""
    if isinstance(value, str):
        preset(value)
        return value
    if not isinstance(value, list):
        raise mistake(f"{value!r} is neither a preset's name nor a list of stages")
    if not value:
        raise mistake("no stage is given; give one at least")
    return _STAGES.validate_python(value)


_STAGES: TypeAdapter[list[Stage]] = TypeAdapter(list[Stage])


class PruneTokens(BaseModel):
    """Write rules into the config by which visual tokens are pruned while the model runs; no weight is changed.

    `compress.load` and `compress.runtime.attach` obey them, stock software runs all tokens.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: Annotated[
        str | list[Stage],
        WrapValidator(_given),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]}),
        PlainSerializer(lambda given: given if isinstance(given, str) else [stage.written() for stage in given]),
    ] = Field(description="A preset by name (`compress ls recipes` has them as tokens/…), a recipe's file, or stages.")
    keep: Keep | None = Field(
        default=None, description="The share of visual tokens that is left in the end; a preset has its own by default."
    )

    @property
    def asked(self) -> tuple[list[Stage], float | None]:
        """The stages as written, and the share that is left in the end."""
        if isinstance(self.tokens, list):
            return self.tokens, self.keep
        inner = preset(self.tokens)
        stages, keep = inner.asked
        return stages, keep if self.keep is None else self.keep


def preset(name: str) -> PruneTokens:
    """The only step of a preset's recipe. Raises a mistake where there is no such, or it is something else."""
    path = shipped(FOLDER + name) or (Path(name) if name.endswith((".yaml", ".yml")) else None)
    known = [one.removeprefix(FOLDER) for one in names() if one.startswith(FOLDER)]
    if path is None or not path.is_file():
        near = did_you_mean(name, known)
        raise mistake(f"{name!r} is no preset{near} (known: {', '.join(known)}) and no recipe's file")
    try:
        data = Source(path.read_text(encoding="utf-8"), str(path)).data
    except (InputError, OSError, UnicodeDecodeError) as error:
        raise mistake(f"{path}: cannot be read: {error}") from None
    steps = data.get("steps") if isinstance(data, dict) else None
    step = steps[0] if isinstance(steps, list) and len(steps) == 1 else {}
    if not isinstance(step.get("tokens"), list):
        raise mistake(f"{path}: a preset's recipe has one step, `tokens`, with its stages")
    return PruneTokens.model_validate(step)
