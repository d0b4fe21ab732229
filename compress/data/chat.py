"""Texts in the form that an instruct model was trained on: its tokenizer's chat template."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

from compress.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = list[dict[str, str]]
"""A conversation: in each message its `role` (user, assistant, system) and its `content`."""

ROLES = ("user", "assistant")


def is_conversation(value: Any) -> TypeGuard[Messages]:
    """Whether a value of a data set is a conversation, as most sets of them write it."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))
            for message in value
        )
    )


def in_template(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str | Messages]) -> Iterator[str]:
    """Conversations as text, the template's special tokens written out.

    Plain texts become conversations of two messages: one is what the user says, the next what the assistant answers; a
    last one without an answer is left out. Raises InputError when the tokenizer has no chat template, or it refuses a
    conversation.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            "calibrate.template: chat: the model's tokenizer has no chat template; leave `template` out, or put the "
            "model's chat_template.jinja beside its config.json"
        )
    for messages in _conversations(texts):
        try:
            yield str(tokenizer.apply_chat_template(messages, tokenize=False))
        except Exception as error:  # whatever Jinja and the template itself raise
            reason = str(error).strip().partition("\n")[0]
            raise InputError(f"calibrate.data: the model's chat template refuses a conversation: {reason}") from error


def _conversations(texts: Sequence[str | Messages]) -> Iterator[Messages]:
    said: list[str] = []
    for text in texts:
        if not isinstance(text, str):
            yield text
            continue
        said.append(text)
        if len(said) == len(ROLES):
            yield [{"role": role, "content": one} for role, one in zip(ROLES, said, strict=True)]
            said = []
