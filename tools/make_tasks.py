"""Writes the questions of the evaluation tasks that ship: prose of the standard library that `docs` keeps for testing.

    python tools/make_tasks.py

The text is of the Python standard library's docstrings (PSF License 2.0). Nothing that is calibrated or trained on
under `data: docs` is among it. What was written is committed, so that figures compare from one machine to another.
"""

from __future__ import annotations

import json
import os
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from random import Random

from compress.data.sources.docs import docs, docstrings, paragraphs

TASKS = Path(__file__).resolve().parent.parent / "compress" / "evaluate" / "tasks"
SEED = 0
WORDS = 4
"""Words before a question, at least."""

CHOICES, EACH = 4, 2
"""Answers to choose from, and next words asked for in one paragraph."""

NO_PROSE = {"site-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}


def prose() -> list[str]:
    """Paragraphs of the standard library that no calibration sees."""
    held_out, found = set(docs(split="test")), dict[str, None]()
    for folder, folders, files in os.walk(sysconfig.get_paths()["stdlib"]):
        folders[:] = sorted(name for name in folders if name not in NO_PROSE and name[0] != ".")
        for name in sorted(files):
            if name.endswith(".py"):
                source = (Path(folder) / name).read_text(encoding="utf-8", errors="ignore")
                for docstring in docstrings(source):
                    found.update(dict.fromkeys(text for text in paragraphs(docstring) if text in held_out))
    return list(found)


def orders(texts: list[str], random: Random) -> Iterable[dict[str, object]]:
    """The beginning of a sentence and four ends of the same words, in one of which they stand as they were written.

    In the others two neighbours have changed places, so a model must know which word follows which.
    """
    for text in texts:
        start, end = _halves(text.partition(". ")[0].rstrip(".").split())
        swaps = [place for place in range(len(end) - 1) if end[place].lower() != end[place + 1].lower()]
        if len(start) < WORDS or len(swaps) < CHOICES - 1:
            continue
        choices = [" ".join(end), *(" ".join(_swapped(end, i)) for i in random.sample(swaps, CHOICES - 1))]
        random.shuffle(choices)
        yield {"context": " ".join(start), "choices": choices, "gold": choices.index(" ".join(end))}


def words(texts: list[str], random: Random) -> Iterable[dict[str, object]]:
    """Beginnings of a paragraph and the word that comes next."""
    for text in texts:
        split = text.split()
        places = [place for place in range(WORDS, len(split)) if split[place].isalpha()]
        for place in sorted(random.sample(places, min(len(places), EACH))):
            yield {"context": " ".join(split[:place]), "word": split[place]}


def write(name: str, rows: Iterable[dict[str, object]]) -> None:
    """One JSON object a line."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (TASKS / name).write_text("".join(lines), encoding="utf-8")
    print(f"{len(lines)} questions in {TASKS / name}")


def _halves(split: list[str]) -> tuple[list[str], list[str]]:
    return split[: len(split) // 2], split[len(split) // 2 :]


def _swapped(split: list[str], place: int) -> list[str]:
    return [*split[:place], split[place + 1], split[place], *split[place + 2 :]]


if __name__ == "__main__":
    held_out = prose()
    write("order.jsonl", orders(held_out, Random(SEED)))
    write("word.jsonl", words(held_out, Random(SEED)))
