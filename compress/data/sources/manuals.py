"""English prose that is no docstring, without a network: Python's language reference and packages' descriptions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.metadata import distributions
from pydoc_data.topics import topics

from compress.data.sources.docs import paragraphs
from compress.registry import sources


@sources.add("manuals")
def manuals() -> Iterator[str]:
    """English prose of manuals: what Python's `help()` says of the language, and the readmes of installed packages.

    Topic by topic and readme by readme, so that most of a sequence is running text; needs no network. The same for the
    same Python and the same set of packages. Nothing of it is a docstring, so it is another text than `docs`.
    """
    yield from _harvest()


@cache  # takes a second, and models that are compared read the same text
def _harvest() -> tuple[str, ...]:
    texts = [topics[name] for name in sorted(topics)]
    found = {f"{one.metadata['Name']} {one.version}": one.metadata for one in distributions() if one.metadata["Name"]}
    for name in sorted(found):
        described = found[name]
        texts.append(str(described.get_payload() or described.get("Description") or ""))  # pyright: ignore
    seen: set[str] = set()
    running = []
    for text in texts:
        new = [one for one in dict.fromkeys(paragraphs("\n" + text)) if one not in seen]
        seen.update(new)
        running.append("\n\n".join(new))
    return tuple(filter(None, running))
