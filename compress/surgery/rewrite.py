"""Writing an edited model: its tensors one by one, its config, and what of the input's other files is still true."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from compress.checkpoint.beside import copy_beside, write_config
from compress.checkpoint.open import open_checkpoint
from compress.checkpoint.write import ShardWriter
from compress.model.model import Model
from compress.surgery.edit import Edit, Written
from compress.surgery.verify.shapes import check_places

SHARD = 5_000_000_000
"""Bytes of weights in one file."""


@dataclass(frozen=True)
class InFolder:
    """An existing folder."""

    folder: Path

    def write(self, source: Model, edit: Edit) -> None:
        """See `rewrite`."""
        rewrite(source, edit, self.folder)

    def opened(self, source: Model) -> Written:
        """The checkpoint, every tensor of which has its place in the model of config.json. Raises VerifyError."""
        opened = open_checkpoint(self.folder, trust_remote_code=source.checkpoint.trust_remote_code)
        check_places(opened, self.folder)
        return Written(self.folder, opened)


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
