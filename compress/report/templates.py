"""The templates of reports, cards and comparisons: a name that a template does not know raises."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined


@cache  # an environment compiles each of its templates once
def templates(package: str, *, html: bool = True) -> Environment:
    """Those that lie in `package`; in `html` what is filled in is escaped, else a template's last newline is kept."""
    return Environment(
        loader=PackageLoader(package, "."),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=not html,
    )
