"""English prose without a network: the docstrings of the packages installed beside this one."""

from __future__ import annotations

import os
import re
import sysconfig
from collections.abc import Iterator
from functools import cache, lru_cache
from hashlib import blake2b
from importlib.metadata import distributions
from itertools import takewhile
from pathlib import Path
from typing import Literal

from compress.console import track
from compress.files.cache import cache_folder, new_file
from compress.registry import sources

HELD_OUT = 20
"""One paragraph in so many belongs to the split `test`."""

LONGEST_FILE = 2_000_000

VERSION = "2"
"""Part of the file's name: another way of cleaning is another text."""

QUOTES = ('"""', "'''")
BEFORE_QUOTES = re.compile(r"[ \t]*[rRuU]?")
ROLE = re.compile(r":[\w:.+-]+:`~?([^`<]+?)(?: ?<[^`>]*>)?`")
LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)|`([^`<]+?) ?<[^`>]*>`_+")
MARKS = re.compile(r"`+|\*\*|[{}]")
CODE = re.compile(r">>>|[=<>|\\_^]|::|\(\)|https?:|\$|\[|@|#|\w\.\w+\.\w|[^\x00-\x7f]")
COMMON = frozenset(
    "the of to a is and in for that be are with as this it by on or an from not if which can".split()  # noqa: SIM905
)
RULE = re.compile(r"^[-=~^*#]{3,}$")
ITEM = re.compile(
    r"(?:[-*+•]|\d+[.)]|[a-z]\))\s+"
    r"|:(?:param|type|returns?|raises?|ivar|keyword)\b[^:]*:\s*"
    r"|[`*\w.]+(?: ?\([^)]*\))?\s?:\s(?=[A-Z])"
)
NUMPY_ITEM = re.compile(r"^[*\w, ]+ : ")
NO_LETTER = re.compile(r"[^a-z]+")

# Millions of lines are read, few become prose: what a pattern could match is asked for before the pattern is run.
RULED = frozenset("-=~^*#")
ITEMIZED = frozenset("-*+•")

SHORTEST = 60
"""Characters of a paragraph."""


@sources.add("docs")
def docs(*, split: Literal["train", "test"] = "train") -> Iterator[str]:
    """English prose from the docstrings of installed packages, paragraph by paragraph; needs no network.

    The same for the same set of packages; their code is read, never imported. `train` and `test` share no paragraph.
    """
    yield from _split(harvest(), split)


@lru_cache(maxsize=2)  # recipes that are compared read the same text
def _split(file: Path, split: str) -> tuple[str, ...]:
    paragraphs = filter(None, file.read_text(encoding="utf-8").split("\n"))
    return tuple(text for text in paragraphs if (_number(text) % HELD_OUT == 0) == (split == "test"))


def harvest() -> Path:
    """The file with one paragraph on each line; made on first use, again when packages have changed."""
    file = cache_folder() / "text" / f"docs-{_installed()}.txt"
    if not file.exists():
        with new_file(file) as opened:
            opened.writelines(f"{paragraph}\n".encode() for paragraph in _harvest())
    return file


@cache
def _installed() -> str:
    """Stands for the packages that are installed and their versions."""
    names = sorted({f"{d.metadata['Name']}=={d.version}" for d in distributions() if d.metadata["Name"]})
    return blake2b("\n".join([VERSION, *names]).encode(), digest_size=8).hexdigest()


def _harvest() -> Iterator[str]:
    seen: set[int] = set()
    for path in track(list(_python_files()), "collecting English prose from installed packages, once; files"):
        try:
            if path.stat().st_size > LONGEST_FILE:
                continue
            source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        for docstring in docstrings(source):
            for paragraph in paragraphs(docstring):
                # The same words with other names in them are the same paragraph (documented arguments repeat).
                mark = _number(_letters(paragraph, 60))
                if mark not in seen:
                    seen.add(mark)
                    yield paragraph


def docstrings(source: str) -> Iterator[str]:
    """What is between triple quotes that begin their line, as those of a string inside an expression do not."""
    end = len(source)
    following = dict.fromkeys(QUOTES, -1)
    at = done = 0
    while True:
        for quotes, place in following.items():
            if place < at:
                following[quotes] = found if (found := source.find(quotes, at)) >= 0 else end
        quotes, start = min(following.items(), key=lambda item: item[1])
        if start == end:
            return
        line = source.rfind("\n", 0, start) + 1
        opens = line >= done and BEFORE_QUOTES.fullmatch(source, line, start)
        if opens and (close := source.find(quotes, start + 3)) >= 0:
            yield source[start + 3 : close]
            at = done = close + 3
        else:
            at = newline if (newline := source.find("\n", start)) >= 0 else end


def _letters(text: str, count: int) -> str:
    """The first letters of the text, in lower case."""
    some = NO_LETTER.sub("", text[: 2 * count].lower())
    return (some if len(some) >= count else NO_LETTER.sub("", text.lower()))[:count]


def _python_files() -> Iterator[Path]:
    """Python files of installed packages and of the standard library, in an order that does not change."""
    paths = sysconfig.get_paths()
    for root in dict.fromkeys(Path(paths[name]) for name in ("purelib", "platlib", "stdlib")):
        for folder, folders, files in os.walk(root):
            folders[:] = sorted(
                name for name in folders if name not in ("site-packages", "__pycache__", "compress") and name[0] != "."
            )
            yield from (Path(folder) / name for name in sorted(files) if name.endswith(".py"))


def paragraphs(docstring: str) -> Iterator[str]:
    """The paragraphs of a docstring that are plain English sentences, each on one line, markup removed.

    Items of lists and descriptions of arguments are paragraphs of their own, without what introduces them.
    """
    for block in _blocks(docstring):
        text = " ".join(" ".join(block).split())
        if len(text) < SHORTEST:  # removing markup makes none longer
            continue
        if "`" in text:
            text = ROLE.sub(r"\1", text)
        if "`" in text or "](" in text:
            text = LINK.sub(lambda m: m[1] or m[2], text)
        if "`" in text or "**" in text or "{" in text or "}" in text:
            text = MARKS.sub("", text)
        text = text.strip()
        if _is_prose(text):
            yield text


def _blocks(docstring: str) -> Iterator[list[str]]:
    """Lines that belong together: same indentation, or below an item's first line."""
    first, _, rest = docstring.partition("\n")
    lines = rest.split("\n")
    outer = _margin(lines)
    block: list[str] = []
    margin, item = 0, False  # of the block; after an item's first line deeper ones still belong to it
    for number, line in enumerate((first.strip(), *lines)):
        inner = line.lstrip()
        text = inner.rstrip()
        indent = len(line) - len(inner) - outer if number else 0
        rule = text[:1] in RULED and RULE.match(text)
        start = ITEM.match(text) if _may_be_item(text) else None
        if not text or rule or start or not (indent == margin or (item and indent > margin)):
            if block and not rule:  # a heading is what a rule underlines
                yield block
            block, margin, item = [], indent, bool(start)
        if text and not rule and not (" : " in text and NUMPY_ITEM.match(text)):
            block.append(text[start.end() :] if start else text)
    if block:
        yield block


def _margin(lines: list[str]) -> int:
    """How many blanks and tabs all lines begin with, as textwrap.dedent has it."""
    filled = [line for line in lines if line.strip(" \t")]
    least, greatest = min(filled, default=""), max(filled, default="")  # between them lie the others
    common = takewhile(lambda two: two[0] == two[1] and two[0] in " \t", zip(least, greatest, strict=False))
    return sum(1 for _ in common)


def _may_be_item(text: str) -> bool:
    return ":" in text or text[:1] in ITEMIZED or text[:1].isdecimal() or text[1:2] == ")"


def _is_prose(text: str) -> bool:
    if len(text) < SHORTEST or text[-1] not in '.!?:"' or not text[0].isupper():
        return False
    words = text.split()
    if sum(map(COMMON.__contains__, text.lower().split())) < 0.2 * len(words):
        return False
    odd = [word for word in words if not word.isalpha()]
    plain = sum(word.strip(".,;:!?()\"'-*").replace("-", "").replace("'", "").isalpha() for word in odd)
    if len(words) - len(odd) + plain < 0.85 * len(words):
        return False
    return len(CODE.findall(text)) * 80 <= len(text)


def _number(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
