"""Tests run offline, on few threads and without a display."""

import os
import signal
import sysconfig
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub
os.environ["OMP_NUM_THREADS"] = "1"  # before torch: the workers are as many as the cores, and some tests fork
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is started with it ignored


@pytest.fixture(scope="session")
def harvested(tmp_path_factory):
    """A cache whose `docs` are those of the standard library's own modules: harvesting every package takes a while."""
    from compress.data.sources import docs

    folder = tmp_path_factory.mktemp("harvested")
    few = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPRESS_CACHE", str(folder))
        patch.setattr(docs, "_python_files", lambda: iter(few))
        docs.harvest()
    return folder
