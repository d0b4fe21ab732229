"""The digest of a file's whole content, computed on all cores and remembered.

It finds changes, not forgeries: xxh3 is as fast as memory and no cryptographic hash. Chunks of a fixed size are hashed
each on its own and their hashes together, so the number of threads does not matter.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path

from xxhash import xxh3_128

from compress.checkpoint.seen import shortened, unreadable
from compress.console import human_bytes, task
from compress.files.cache import cache_folder, new_file

CHUNK = 64 * 2**20
"""Bytes hashed on their own; another number gives other digests."""

BLOCK = 2**20
"""Bytes read at once."""

SETTLED = 5.0
"""Seconds for which a file must have been left alone before its digest is remembered: one changed again within the
clock's granularity (2 s on some file systems) would look the same. Git has the same rule for its index."""

PATIENCE = 3.0
"""Seconds without progress on the screen."""


def content_digests(files: Iterable[Path], threads: int | None = None) -> dict[Path, bytes]:
    """File → 16 bytes that depend on its content alone.

    Raises InputError when a file cannot be read, ends early or the cache cannot be written.
    """
    found: dict[Path, bytes] = {}
    states, started = {file: _state(file) for file in files}, time.time_ns()
    for file, state in states.items():
        if (known := _remembered(file, state)) is not None:
            found[file] = known
    unknown = {file: states[file][0] for file in states if file not in found}
    for file, digest in _computed(unknown, threads or _cores()).items():
        found[file] = digest
        state = states[file]
        if started - max(state[1:3]) > SETTLED * 1e9 and _state(file) == state:
            _remember(file, state, digest)
    return found


def _computed(sizes: dict[Path, int], threads: int) -> dict[Path, bytes]:
    starts = [(file, start) for file, size in sizes.items() for start in range(0, size, CHUNK)]
    digests = {file: xxh3_128(str(size).encode()) for file, size in sizes.items()}
    began, total, done = time.monotonic(), sum(sizes.values()), 0
    with ThreadPoolExecutor(threads) as pool, ExitStack() as shown:
        advance = None
        jobs = [pool.submit(_chunk, file, start, min(CHUNK, sizes[file] - start)) for file, start in starts]
        try:
            for (file, start), job in zip(starts, jobs, strict=True):
                digests[file].update(job.result())
                read = min(CHUNK, sizes[file] - start)
                done += read
                if advance is not None:
                    advance(read // 10**6)
                elif time.monotonic() - began > PATIENCE:
                    label = f"reading the weights ({human_bytes(total)}) for their digest, MB"
                    advance = shown.enter_context(task(label, total // 10**6))
                    advance(done // 10**6)
        finally:
            pool.shutdown(cancel_futures=True)
    return {file: digest.digest() for file, digest in digests.items()}


def _chunk(file: Path, start: int, count: int) -> bytes:
    digest = xxh3_128()
    block = memoryview(bytearray(min(BLOCK, count)))
    try:
        with file.open("rb", buffering=0) as opened:
            opened.seek(start)
            while count:
                got = opened.readinto(block[:count])
                if not got:
                    raise shortened(file)
                digest.update(block[:got])
                count -= got
    except OSError as error:
        raise unreadable(file, error) from None
    return digest.digest()


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _state(file: Path) -> list[int]:
    """Size, the times of change of the content and of the inode, the inode and its disk: all but the path by which a
    digest is remembered. The inode's own time tells even of a change whose file got its old time back."""
    try:
        stat = file.stat()
    except OSError as error:
        raise unreadable(file, error) from None
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev]


def _note(file: Path) -> Path:
    name = blake2b(f"{CHUNK} {file.resolve()}".encode(errors="surrogateescape"), digest_size=16).hexdigest()
    return cache_folder() / "digests" / f"{name}.json"


def _remembered(file: Path, state: list[int]) -> bytes | None:
    try:
        noted = json.loads(_note(file).read_text(encoding="utf-8"))
        return bytes.fromhex(noted["digest"]) if noted["state"] == state else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _remember(file: Path, state: list[int], digest: bytes) -> None:
    noted = {"file": str(file.resolve()), "state": state, "digest": digest.hex()}
    with new_file(_note(file)) as opened:
        opened.write(json.dumps(noted).encode())
