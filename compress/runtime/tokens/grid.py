"""The grid of a picture's tokens."""

from __future__ import annotations

from compress.errors import InputError


def sides(grid: tuple[int, int], n: int, part: str) -> tuple[int, int]:
    """Rows and columns. Raises InputError, naming the `part`, when they are not those of n tokens."""
    rows, columns = grid
    if rows * columns != n:
        raise InputError(
            f"{part}: the picture is {rows}×{columns} tokens, the group has {n}; say a selection or a residual that "
            f"reads no grid, or prune before other tokens leave"
        )
    return rows, columns
