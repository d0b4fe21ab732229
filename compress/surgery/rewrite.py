"""Writing an edited model: its tensors one by one, its config, and what of the input's other files is still true."""

from __future__ import annotations

from pathlib import Path

from compress.checkpoint.beside import copy_beside, write_config
from compress.checkpoint.write import ShardWriter
from compress.model.model import Model
from compress.surgery.edit import Edit

SHARD = 5_000_000_000
"""Bytes of weights in one file."""


def rewrite(source: Model, edit: Edit, folder: Path, *, shard_bytes: int = SHARD) -> int:
    """Write the model that `edit` makes of `source` into an existing `folder`; returns the bytes of its weights.

    Raises InputError where a stored weight is NaN or infinite, or the disk is full, and ValueError where the edit does
    not produce just the tensors that it declares.
    """
    with ShardWriter(folder, edit.specs, shard_bytes=shard_bytes) as writer:
        edit.produce(writer.add)
    checkpoint = source.checkpoint
    trust = checkpoint.trust_remote_code
    write_config(folder, dict(edit.config), trust_remote_code=trust)
    copy_beside(checkpoint.side_files, checkpoint.folder, folder, trust_remote_code=trust, changed=edit.beside)
    return writer.bytes
