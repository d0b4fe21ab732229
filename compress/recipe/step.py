"""The steps of a recipe: each is the settings of a registered kind, told apart by its verb and that key's value."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any, Union

from pydantic import BaseModel, GetJsonSchemaHandler, PlainSerializer, PlainValidator, TypeAdapter

from compress.registry import Entry, steps

USUAL = "prune"
"""The verb that a step without a known one is read as, so that its mistakes have names."""


def step_model(data: Any) -> type[BaseModel]:
    """The settings that a step written as `data` has to fit."""
    return _asked(data).target.settings  # pyright: ignore[reportFunctionMemberAccess]


def entry_of(step: BaseModel) -> Entry:
    """The kind whose settings these are. Raises ValueError where there is none."""
    for entry in map(steps.get, steps.names()):
        if entry.target.settings is type(step):  # pyright: ignore[reportFunctionMemberAccess]
            return entry
    raise ValueError(f"{type(step).__name__} is the settings of no registered kind of step")


def _asked(data: Any) -> Entry:
    kinds: list[tuple[Entry, Any]] = [(entry, entry.target) for entry in map(steps.get, steps.names())]
    written = data if isinstance(data, dict) else {}
    verbs = {kind.verb for _, kind in kinds}
    verb = next((key for key in written if key in verbs), None) or _near(written, verbs)
    subject = written.get(verb)
    own = [(entry, kind) for entry, kind in kinds if kind.verb == verb]
    named = [entry for entry, kind in own if isinstance(subject, str) and subject in kind.subjects]
    others = [entry for entry, kind in own if not kind.subjects]
    return [*named, *others, *(entry for entry, _ in own)][0]


def _near(written: dict[Any, Any], verbs: set[str]) -> str:
    """The verb that one of the keys may have meant."""
    near = [match for key in written for match in get_close_matches(str(key), sorted(verbs), n=1)]
    return [*near, USUAL][0]


def _checked(data: Any) -> BaseModel:
    if isinstance(data, BaseModel):
        entry_of(data)
        return data
    return step_model(data).model_validate(data)


class _AnyKind:
    """In the JSON schema a step is any registered kind's settings."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        every: Any = Union[tuple(steps.get(name).target.settings for name in steps.names())]  # pyright: ignore # noqa: UP007
        return handler(TypeAdapter(every).core_schema)


Step = Annotated[
    BaseModel,
    PlainValidator(_checked),
    PlainSerializer(lambda step: step.model_dump(mode="json", exclude_none=True)),
    _AnyKind,
]
