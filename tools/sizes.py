"""Lists Python files that have grown long: a file over 300 lines is looking for its seam."""

import sys
from pathlib import Path

LIMIT = 300
FOLDERS = ("compress", "tools", "tests")


def long_files(root: Path, limit: int = LIMIT) -> list[tuple[int, Path]]:
    """`(lines, path)` of every Python file in the project's folders with more than `limit` lines, longest first."""
    files = (path for folder in FOLDERS for path in (root / folder).rglob("*.py"))
    counted = ((len(path.read_text().splitlines()), path.relative_to(root)) for path in files)
    return sorted((row for row in counted if row[0] > limit), reverse=True)


if __name__ == "__main__":
    found = long_files(Path(__file__).resolve().parent.parent)
    for lines, path in found:
        print(f"{path}: {lines} lines")
    sys.exit(bool(found))
