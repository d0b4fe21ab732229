"""Parts of other distributions: modules that they name in the entry-point group `compress.parts`.

In a distribution's pyproject.toml:

    [project.entry-points."compress.parts"]
    anything = "its.module"

The module registers parts by the same decorators as this package's own files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.errors import InputError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "compress.parts"

_begun: set[EntryPoint] = set()


def import_parts() -> None:
    """Import the modules that installed distributions name; those imported before are left alone.

    Raises InputError naming the distribution whose module cannot be imported.
    """
    from importlib.metadata import entry_points  # slow to import, and `--help` needs no part

    for point in entry_points(group=GROUP):
        if point in _begun:
            continue
        _begun.add(point)  # before the import: a module may look up a part while it is imported
        try:
            point.load()
        except Exception as error:
            _begun.discard(point)
            who = f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value
            raise InputError(
                f"{who}: its parts for compress ({point.value}, entry point {point.name!r} in {GROUP}) cannot be "
                f"imported: {type(error).__name__}: {error}; mend or update it, or uninstall it"
                + (f" with `pip uninstall {point.dist.name}`" if point.dist is not None else "")
            ) from error
