"""A dataset of the hub."""

from __future__ import annotations

from collections.abc import Iterator

from compress.data.chat import Messages, is_conversation
from compress.errors import InputError
from compress.registry import sources


@sources.add("hub")
def hub(*, name: str, config: str | None = None, split: str = "train", field: str = "text") -> Iterator[str | Messages]:
    """A dataset of the hub by `name` (owner/name), streamed; `field` is the column that holds the text or conversation.

    Raises InputError when it cannot be had.
    """
    try:
        from datasets import load_dataset
    except ImportError:
        raise InputError(f"{name}: a dataset of the hub needs datasets; pip install 'compress-models[data]'") from None
    try:
        rows = load_dataset(name, config, split=split, streaming=True)
        for row in rows:
            if is_conversation(row.get(field)):
                yield row[field]
                continue
            if not isinstance(row.get(field), str):
                raise InputError(f"{name}: no text in column {field!r}; there are {', '.join(row)}")
            if row[field].strip():
                yield row[field]
    except InputError:
        raise
    except Exception as error:  # the library raises errors of many kinds: network, names, formats
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{name}: the dataset cannot be had ({reason}); check the name, or give a local file, or data: docs"
        ) from error
