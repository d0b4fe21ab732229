"""Tokenizers, calibration text, and what else lies beside a model."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bad_inputs.case import CALIBRATED, PRUNE, Case, Prepare, edit_json

EVALUATED = "m.yaml base out"


def _text(name: str, content: str | bytes, *says: str, file: str = "text.txt", code: int = 2) -> Case:
    """The calibration text; w.yaml names the `file`."""

    def prepare(folder: Path) -> None:
        (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)
        _named(folder, file)

    return Case(name, says, prepare, CALIBRATED, code)


def _named(folder: Path, data: str) -> None:
    recipe = folder / "w.yaml"
    recipe.write_text(recipe.read_text().replace("data: text.txt", f"data: {data}"))


def _data(name: str, data: str, *says: str, prepare: Prepare = lambda folder: None, code: int = 2) -> Case:
    def both(folder: Path) -> None:
        prepare(folder)
        _named(folder, data)

    return Case(name, says, both, CALIBRATED, code)


def _instead(make: Prepare) -> Prepare:
    def prepare(folder: Path) -> None:
        (folder / "text.txt").unlink()
        make(folder / "text.txt")

    return prepare


def _tokenizer(name: str, change: Callable[[dict[str, Any]], object], *says: str) -> Case:
    def prepare(folder: Path) -> None:
        file = folder / "base/tokenizer.json"
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return Case(name, says, prepare, CALIBRATED)


def _side(name: str, file: str, content: str | bytes, *says: str, command: str = CALIBRATED, code: int = 2) -> Case:
    def prepare(folder: Path) -> None:
        (folder / "base" / file).write_bytes(content.encode() if isinstance(content, str) else content)

    return Case(name, says, prepare, command, code)


def _without_tokenizer(folder: Path) -> None:
    for file in (folder / "base").glob("tokenizer*"):
        file.unlink()


def _larger(folder: Path) -> None:
    """One token more than the model has."""
    file = folder / "base/tokenizer.json"
    content = json.loads(file.read_text())
    content["added_tokens"].append({**content["added_tokens"][0], "id": 4000, "content": "<more>"})
    file.write_text(json.dumps(content))


def _foreign(folder: Path) -> None:
    """All of the tokenizer's tokens lie beyond the model's."""
    file = folder / "base/tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["vocab"] = {token: number + 4000 for token, number in content["model"]["vocab"].items()}
    file.write_text(json.dumps(content))


LINES = '{"text": "A plain sentence for every line of it."}\n' * 20
CASES = [
    _text("text empty", "", "calibrate.data", "0 sequences", "give more text"),
    _text("text of blanks", " \n\n \n", "calibrate.data", "give more text"),
    _text("text short", "Two words.", "calibrate.data", "16 tokens", "give more text"),
    _text("text not UTF-8", b"\xff\xfe\xfa" * 100, "text.txt", "not UTF-8", "convert"),
    _text("text with zero bytes", b"A sentence\0with zeros. " * 50, "wrote out", code=0),
    _text("text one long word", "x" * 100_000, "wrote out", code=0),
    _text("JSON lines cut off", LINES + '{"text": "half', "a.jsonl:21", "not valid JSON", file="a.jsonl"),
    _text("JSON lines of another key", LINES.replace("text", "body"), "a.jsonl:1", "'text'", "body", file="a.jsonl"),
    _text("JSON lines of numbers", "3\n4\n", "a.jsonl:1", "'text'", file="a.jsonl"),
    _text("JSON lines of null", '{"text": null}\n', "a.jsonl:1", "'text'", file="a.jsonl"),
    _text("JSON lines nested without end", "[" * 100_000, "a.jsonl:1", "not valid JSON", file="a.jsonl"),
    _text("JSON lines empty", "", "calibrate.data", "give more text", file="a.jsonl"),
    _text("JSON cut off", '[{"text": "a"}', "a.json", "not valid JSON", file="a.json"),
    _text("JSON an object", '{"a": 1}', "a.json", "'text'", file="a.json"),
    _text("JSON nested without end", "[" * 100_000, "a.json", "not valid JSON", file="a.json"),
    _text("JSON not UTF-8", b"\xff", "a.json", "not UTF-8", file="a.json"),
    _text("parquet that is none", "PAR1 or not", "a.parquet", "not a parquet file", file="a.parquet"),
    _text("parquet empty", "", "a.parquet", "not a parquet file", file="a.parquet"),
    _text("JSON lines", LINES, "wrote out", file="a.jsonl", code=0),
    Case("text a pipe", ("text.txt", "named pipe", "ordinary file"), _instead(os.mkfifo), CALIBRATED),
    Case("text a device", ("text.txt", "device", "ordinary file"),
         _instead(lambda file: file.symlink_to("/dev/zero")), CALIBRATED),
    Case("text a dangling link", ("w.yaml", "text.txt"), _instead(lambda file: file.symlink_to("nowhere")),
         CALIBRATED),
    Case("text an empty folder", ("text.txt", "no file that ends in"), _instead(lambda file: file.mkdir()), CALIBRATED),
    _data("text in /dev/zero", "/dev/zero", "/dev/zero", "device", "ordinary file"),
    _data("text in /dev/null", "/dev/null", "/dev/null", "device", "ordinary file"),
    _data("text in a folder of pipes", "texts", "texts/a.txt", "named pipe",
          prepare=lambda folder: ((folder / "texts").mkdir(), os.mkfifo(folder / "texts/a.txt"))),
    _data("text missing", "nosuch.txt", "w.yaml:1", "nosuch.txt"),
    _data("text of a hub, offline", "no/where", "no/where", "local file"),
    _data("text named like a book", "x" * 5000 + ".txt", "w.yaml"),
    _data("text of an unknown field", "{text: {path: text.txt, feild: x}}", "w.yaml", "feild"),
    _data("text without a path", "{text: {}}", "w.yaml", "path"),
    _data("docs of an unknown split", "{docs: {split: nosuch}}", "w.yaml", "split"),
    Case("no tokenizer", ("no tokenizer", "data: random"), _without_tokenizer, CALIBRATED),
    Case("no tokenizer, and none needed", ("wrote out",), _without_tokenizer, PRUNE, 0),
    Case("a tokenizer of one token more", ("warning", "tokenizer", "up to 400", "ends at 399", "wrote out"), _larger,
          EVALUATED, 0),
    Case("a tokenizer of another model, evaluated", ("warning", "tokenizer", "399"), _foreign, EVALUATED, 0),
    Case("a tokenizer of another model, calibrated", ("tokenizer", "399", "do not belong together"), _foreign,
         CALIBRATED),
    _tokenizer("a tokenizer of no kind", lambda content: content["model"].update(type="Nosuch"), "tokenizer",
               "cannot be loaded"),
    _tokenizer("a tokenizer without tokens", lambda content: content["model"].update(vocab={}, merges=[]),
               "calibrate.data", "0 sequences"),
    _tokenizer("a tokenizer with a bad merge", lambda content: content["model"]["merges"].append("no such merge"),
               "tokenizer", "cannot be loaded"),
    _tokenizer("a tokenizer without a model", lambda content: content.pop("model"), "tokenizer", "cannot be loaded"),
    _side("a tokenizer that is no JSON", "tokenizer.json", "{", "tokenizer", "cannot be loaded"),
    _side("a tokenizer empty", "tokenizer.json", "", "tokenizer", "cannot be loaded"),
    _side("a tokenizer's config cut off", "tokenizer_config.json", "{", "tokenizer", "cannot be loaded"),
    _side("a tokenizer's config a list", "tokenizer_config.json", "[]", "tokenizer", "cannot be loaded"),
    Case("a tokenizer of an unknown class", ("tokenizer", "cannot be loaded"),
         lambda folder: ((folder / "base/tokenizer.json").unlink(),
                         edit_json(folder / "base/tokenizer_config.json", tokenizer_class="Nosuch")), CALIBRATED),
    Case("a tokenizer with code", ("tokenizer_config.json", "--trust-remote-code"),
         lambda folder: edit_json(folder / "base/tokenizer_config.json", tokenizer_class="My",
                                  auto_map={"AutoTokenizer": ["my.My", None]}), CALIBRATED),
    *(
        Case(f"a pipe as {name}", (name, "named pipe", "ordinary file"),
             lambda folder, name=name: ((folder / "base" / name).unlink(missing_ok=True),
                                        os.mkfifo(folder / "base" / name)), CALIBRATED)
        for name in ("tokenizer.json", "generation_config.json", "README.md", "chat_template.jinja")
    ),
    _side("a generation config cut off", "generation_config.json", "{", "wrote out", command=PRUNE, code=0),
    _side("a model card that is none", "README.md", b"---\nlicense: mit\n---\n\xff", "warning", "README.md",
          "wrote out",
          command=PRUNE, code=0),
    _side("a model card with broken front matter", "README.md", "---\nlicense: [\n---\n", "warning", "README.md",
          "wrote out",
          command=PRUNE, code=0),
]  # fmt: skip
