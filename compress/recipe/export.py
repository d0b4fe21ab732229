"""What a recipe may ask for beside the checkpoint: formats of the registry, looked up while the recipe is read."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, GetJsonSchemaHandler, PlainSerializer, PlainValidator, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails

from compress.errors import InputError
from compress.recipe.mistake import inside, mistake
from compress.registry import formats


def settings_of(name: str) -> type[BaseModel]:
    """The model of what stands under the format `name`. Raises InputError when there is none of that name."""
    return formats.get(name).target.settings  # pyright: ignore[reportFunctionMemberAccess]


def _checked(value: Any) -> dict[str, BaseModel]:
    asked = {value: {}} if isinstance(value, str) else value
    if not isinstance(asked, dict) or not asked:
        raise mistake("an export is written as its format's name, or as {name: {settings}}")
    found: dict[str, BaseModel] = {}
    wrong: list[InitErrorDetails] = []
    for name, settings in asked.items():
        try:
            own = settings_of(str(name))
        except InputError as error:
            wrong.append(InitErrorDetails(type=mistake(str(error)), loc=(str(name),), input=settings))
            continue
        try:
            found[name] = own.model_validate({} if settings is None else settings)
        except ValidationError as error:
            wrong += inside((name,), error)
    if wrong:
        raise ValidationError.from_exception_data("export", wrong)
    return found


class _Schema:
    """The settings of every registered format, looked up when a schema is made."""

    @classmethod
    def __get_pydantic_json_schema__(cls, _: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        names = formats.names()
        own = {name: handler(settings_of(name).__pydantic_core_schema__) for name in names}
        return {
            "description": "the name of a format, or {name: {settings}} of one or several",
            "anyOf": [{"enum": names}, {"type": "object", "minProperties": 1, "properties": own}],
        }


Exports = Annotated[
    dict[str, BaseModel],
    PlainValidator(_checked),
    PlainSerializer(
        lambda exports: {
            name: settings.model_dump(mode="json", exclude_none=True) for name, settings in exports.items()
        }
    ),
    _Schema,
]
"""Format → its settings. `export: onnx`, or `export: {onnx: {...}}` with settings."""
