"""Two processes gather what one does."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

import pytest
import torch
import zoo
from torch.distributed import TCPStore

from compress.calibrate.collect import collect
from compress.calibrate.distributed import share
from compress.checkpoint.open import open_checkpoint

NAMES = ("input_norm", "input_variance", "input_gram", "gradient", "fisher")


def gathered(folder: Path, data_key: str | None):
    graph = zoo.graph("llama")
    keys = {f"{block}.{name}.weight" for block in graph.blocks for name in ("mlp.down_proj", "self_attn.o_proj")}
    needs = {**dict.fromkeys(NAMES, keys), "block_cosine": set(graph.blocks)}
    stats = collect(open_checkpoint(folder), graph, needs, zoo.batches("llama", (3, 3, 1)), data_key=data_key)
    return {(name, key): stats[name][key] for name in needs for key in needs[name]}


def forked(rank: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """The number of a child that gathers in memory, then on disk, then from disk: a process of its own, as a launcher
    would start it, but for the imports, which take most of the time."""
    if child := os.fork():
        return child
    try:
        torch.set_num_threads(1)  # a pool of threads does not survive the fork
        monkeypatch.setenv("RANK", str(rank))
        torch.save([gathered(folder / "model", key) for key in (None, "key", "key")], folder / f"{rank}.pt")
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


@pytest.mark.slow
def test_results_equal_those_of_one_process(tmp_path, monkeypatch):
    zoo.save("llama", tmp_path / "model")
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "alone"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    expected = gathered(tmp_path / "model", None)
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "together"))
    meeting = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # its port is never free in between
    given = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(meeting.port), "WORLD_SIZE": "2"}
    given |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}  # nor does rank 0 listen there
    if sys.platform == "linux":
        given["GLOO_SOCKET_IFNAME"] = "lo"  # whatever the machine's name resolves to
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    children = [forked(rank, tmp_path, monkeypatch) for rank in range(2)]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    for rank in range(2):
        for found in torch.load(tmp_path / f"{rank}.pt"):
            assert found.keys() == expected.keys()
            for key, value in expected.items():
                assert torch.allclose(found[key], value, rtol=1e-4, atol=1e-7), key


def test_alone_nothing_is_shared_out():
    batches = zoo.batches("llama")
    assert share(batches) is batches
