"""Token residuals: what becomes of the tokens that a selection leaves out. Pure functions that return `Merged`.

Where nothing is left out nothing is merged: the tokens stay as they are, bit by bit.
"""
