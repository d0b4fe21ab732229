"""The one verifier: what was written opens, and is what the edit claims."""

from __future__ import annotations

from compress.errors import CompressError, VerifyError
from compress.model.model import Model
from compress.surgery.edit import Edit, Place


def verify(source: Model, edit: Edit, place: Place) -> str:
    """Check that what was written to `place` opens with every tensor in it, and the edit's claim.

    Returns what was found, for the report. Raises VerifyError.
    """
    try:
        return f"verified: {edit.claim.prove(source, place.opened(source))}"
    except VerifyError:
        raise
    except CompressError as error:
        raise VerifyError(f"what was written cannot be opened: {error}") from error
