"""The output folder, the cache, and what the machine runs out of."""

from __future__ import annotations

import os
from pathlib import Path

from bad_inputs.case import CALIBRATED, Case, Prepare


def _out(name: str, out: str, *says: str, prepare: Prepare = lambda folder: None, more: str = "") -> Case:
    return Case(name, says, prepare, f"m.yaml base {out} --no-evaluate {more}")


def _cache(name: str, cache: str, *says: str, prepare: Prepare = lambda folder: None) -> Case:
    says = (*says, "COMPRESS_CACHE")
    return Case(name, says, prepare, CALIBRATED, env={"COMPRESS_CACHE": cache})


def _file(folder: Path) -> None:
    (folder / "taken").write_text("precious")


def _folder(folder: Path) -> None:
    (folder / "taken").mkdir()
    (folder / "taken/thesis.txt").write_text("precious")


CASES = [
    _out("a folder that exists", "taken", "taken", "exists", "--force", prepare=_folder),
    _out("a folder of others, forced", "taken", "taken", "not written by compress", prepare=_folder, more="--force"),
    _out("a file", "taken", "taken", "is a file", "another name", prepare=_file),
    _out("a file, forced", "taken", "taken", "is a file", "another name", prepare=_file, more="--force"),
    _out("below a file", "taken/out", "taken", "is a file", prepare=_file),
    _out("far below a file", "taken/a/b/out", "taken", "is a file", prepare=_file),
    _out("a pipe", "taken", "taken", "is a file", prepare=lambda folder: os.mkfifo(folder / "taken")),
    _out("a device", "/dev/null", "/dev/null", "is a file"),
    _out("a dangling link", "taken", "taken", "symbolic link to nowhere", "another name",
         prepare=lambda folder: (folder / "taken").symlink_to("nowhere")),
    _out("a link to itself", "taken", "taken", "link", prepare=lambda folder: (folder / "taken").symlink_to("taken")),
    _out("below a link in a circle", "taken/out", "taken",
         prepare=lambda folder: (folder / "taken").symlink_to("taken")),
    _out("the input", "base", "base", "is base, which is read", "another folder"),
    _out("the input, forced", "base", "base", "is base, which is read", more="--force"),
    _out("the input, spelt otherwise", "./base/../base/.", "base", "which is read", more="--force"),
    _out("inside the input", "base/out", "lies in base", "which is read"),
    _out("around the input", ".", "which is read", more="--force"),
    _out("the input by a link", "taken", "taken", prepare=lambda folder: (folder / "taken").symlink_to("base"),
         more="--force"),
    _out("the root", "/", "cannot be the output folder", more="--force"),
    _out("nothing", "''", "which is read"),
    _out("one dot", ".", "which is read"),
    _out("two dots", "..", "which is read", more="--force"),
    _out("in /proc", "/proc/x/y", "/proc/x/y", "cannot be written"),
    _out("in /sys", "/sys/x", "/sys/x", "cannot be written"),
    _out("in /dev/full", "/dev/full/out", "/dev/full", "is a file"),
    _out("a name of 240 letters", "x" * 240, "xxx", "shorten it"),
    _out("a name of 300 letters", "x" * 300, "300 bytes", "shorten it"),
    _out("a path of 5000 letters", "/".join(["x" * 99] * 50), "xxx", "shorten it"),
    _out("a name of 300 bytes", "ä" * 150, "300 bytes", "shorten it"),
    _out("a name with a zero", "$'a\0b'", "cannot be the output folder"),
    _out("of no user's home", "~nosuchuser/out", "nosuchuser", "cannot be the output folder"),
    Case("dry run into a folder that exists", ("taken", "exists"), _folder, "m.yaml base taken --dry-run"),
    Case("a plan into a file that exists", ("taken", "exists", "--force"), _file, "plan m.yaml base --to taken"),
    Case("a plan into no folder", ("nosuch/p.json", "folder does not exist"),
          command="plan m.yaml base -o nosuch/p.json"),
    Case("a plan into a folder", ("taken", "exists"), _folder, "plan m.yaml base --to taken"),
    Case("compare into the input", ("base", "which is read"), command="compare m.yaml base -o base --force"),
    Case("compare into a file", ("taken", "is a file"), _file, "compare m.yaml base -o taken"),
    Case("export into a file", ("taken", "is a file"), _file, "export base -o taken"),
    Case("apply-delta into the base", ("base",), command="apply-delta base base base --force"),
    _cache("cache a file", "taken", "taken", "is a file", prepare=_file),
    _cache("cache below a file", "taken/cache", "taken", prepare=_file),
    _cache("cache in /proc", "/proc/x", "/proc/x", "cannot be written"),
    _cache("cache a device", "/dev/null", "/dev/null"),
    _cache("cache a dangling link", "taken", "taken", prepare=lambda folder: (folder / "taken").symlink_to("/proc/x")),
    _cache("cache a link to itself", "taken", "taken", prepare=lambda folder: (folder / "taken").symlink_to("taken")),
    _cache("cache named like a book", "x" * 5000, "xxx"),
    Case("no memory for the samples", ("memory ran out", "calibrate"),
         lambda folder: (folder / "w.yaml").write_text(
             "calibrate: {data: random, samples: 100000, length: 512}\n"
             "steps:\n  - {prune: [channels], by: wanda, remove: 25%}\n"), CALIBRATED, memory=200_000_000),
]  # fmt: skip
