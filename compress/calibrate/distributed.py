"""Several processes (torchrun, accelerate launch): samples are dealt out, sums are added up."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from compress.calibrate.totals import Totals
from compress.errors import InputError


def start() -> None:
    """Join the other processes, if the launcher started several."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")


def rank() -> int:
    """This process's number, 0 when it is alone."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def launched() -> int:
    """How many processes there are, or are going to be once they join each other."""
    return max(size(), int(os.environ.get("WORLD_SIZE", "1")))


def share(batches: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """This process's samples: every `size()`-th one, in batches as large as before.

    Raises InputError when there are fewer samples than processes.
    """
    if size() == 1 or not batches:
        return batches
    rows = next(iter(batches[0].values())).shape[0]
    names = list(batches[0])
    samples = [{n: batch[n][i] for n in names} for batch in batches for i in range(len(batch[names[0]]))]
    if len(samples) < size():
        raise InputError(f"calibrate.samples: {len(samples)} samples are too few for {size()} processes")
    own = samples[rank() :: size()]
    return [
        {name: torch.stack([sample[name] for sample in own[i : i + rows]]) for name in names}
        for i in range(0, len(own), rows)
    ]


def add_up(totals: Totals, known: dict[int, Tensor]) -> None:
    """Make the sums those of all processes together; `known` are sums shared by several totals, by identity."""
    if size() == 1:
        return
    device = next((value.device for value in totals.sums.values()), torch.device("cpu"))
    each = totals.tokens.to(device) if isinstance(totals.tokens, Tensor) else None
    kind = torch.int64 if isinstance(totals.tokens, int) else torch.float64
    tokens = torch.tensor(totals.tokens, dtype=kind, device=device) if each is None else each
    dist.all_reduce(tokens)
    totals.tokens = tokens.item() if each is None else tokens
    for name in sorted(totals.sums):
        own = totals.sums[name]
        if id(own) in known:
            continue
        totals.sums[name] = own.contiguous()
        dist.all_reduce(totals.sums[name])
        if name == "gram":
            known[id(own)] = totals.sums[name]


def summed(values: Tensor) -> Tensor:
    """The sum of all processes' `values`, on the CPU."""
    if size() > 1:
        dist.all_reduce(values)
    return values


def agreed(value: Any) -> Any:
    """What the first process has, in every process."""
    if size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
