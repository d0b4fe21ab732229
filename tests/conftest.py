"""What every test may rely on: no network, few threads, no display, fixed seeds, and caches of its own.

`COMPRESS_TESTS=fuzz` draws the order of the tests, their seeds and hypothesis' examples anew (`make fuzz`).
"""

from __future__ import annotations

import atexit
import gc
import itertools
import os
import shutil
import signal
import sys
import sysconfig
import tempfile
import zlib
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest

FUZZ = os.environ.get("COMPRESS_TESTS") == "fuzz"
SEED = 1

# What transformers keeps is each worker's own: of two that fill one folder at once, one reads half a file.
KEPT = Path(tempfile.mkdtemp(prefix="compress-tests-"))
OWNER = os.getpid()
COUNT = itertools.count()

os.environ |= {  # before anything imports torch or huggingface_hub
    "HF_HUB_OFFLINE": "1",
    "HF_HOME": str(KEPT / "huggingface"),
    "HF_MODULES_CACHE": str(KEPT / "modules"),
    "COMPRESS_CACHE": str(KEPT / "compress"),
    "OMP_NUM_THREADS": "1",  # the workers are as many as the cores, and some tests fork
    "TORCH_FAKE_TENSOR_DISPATCH_CACHE": "0",  # a cache that costs more than it saves on graphs of one or two blocks
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "MPLBACKEND": "Agg",
    "NO_PROXY": "127.0.0.1,localhost",
    "COLUMNS": "80",
}
for given in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "HF_TOKEN"):
    os.environ.pop(given, None)

hypothesis.settings.register_profile("same", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.register_profile("fuzz", deadline=None, print_blob=True)
hypothesis.settings.load_profile("fuzz" if FUZZ else "same")

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is started with it ignored,
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # one under nohup with this one


@atexit.register
def _remove_what_is_kept() -> None:
    if os.getpid() == OWNER:  # not in a fork
        shutil.rmtree(KEPT, ignore_errors=True)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """One order, and one seed for every test, unless others are asked for."""
    if not FUZZ and getattr(config.option, "randomly_seed", None) == "default":
        config.option.randomly_seed = SEED


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collecting imports torch, transformers and all of ours: none of it is garbage, now or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that draws without a seed draws the same whatever ran before it."""
    if (torch := sys.modules.get("torch")) is not None:  # pytest-randomly sees to the others
        torch.manual_seed(item.config.getoption("randomly_seed", SEED) + zlib.crc32(item.nodeid.encode()))


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left of the tests before: statistics are gathered anew, and messages are shown."""
    from compress import console

    monkeypatch.setenv("COMPRESS_CACHE", str(KEPT / f"compress-{next(COUNT)}"))
    console.switch()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring in this process gets all the time it takes: what a report holds does not hang on the machine's load."""
    monkeypatch.setattr("compress.evaluate.budget.LEAST_SECONDS", 3600.0)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for the disk: of a process that ends, or is killed, the kernel loses nothing."""
    monkeypatch.setattr(os, "fsync", os.fstat)  # which refuses a handle that is not open, too


@pytest.fixture(scope="session")
def harvested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache whose `docs` are those of the standard library's own modules: harvesting every package takes a while."""
    from compress.data.sources import docs

    folder = tmp_path_factory.mktemp("harvested")
    few = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPRESS_CACHE", str(folder))
        patch.setattr(docs, "_python_files", lambda: iter(few))
        docs.harvest()
    return folder
