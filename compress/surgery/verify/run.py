"""The one verifier: what was written opens as its config says, and is what the edit claims."""

from __future__ import annotations

from pathlib import Path

from compress.checkpoint.open import open_checkpoint
from compress.errors import CompressError, VerifyError
from compress.model.model import Model
from compress.surgery.edit import Edit, Written
from compress.surgery.verify.shapes import check_places


def verify(source: Model, edit: Edit, folder: Path) -> str:
    """Check that every tensor in `folder` has its place in the model of config.json, and the edit's claim.

    Returns what was found, for the report. Raises VerifyError.
    """
    try:
        opened = open_checkpoint(folder, trust_remote_code=source.checkpoint.trust_remote_code)
        check_places(opened, folder)
        return f"verified: {edit.claim.prove(source, Written(folder, opened))}"
    except VerifyError:
        raise
    except CompressError as error:
        raise VerifyError(f"what was written cannot be opened: {error}") from error
