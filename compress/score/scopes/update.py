"""Criteria that choose weights as they go, and move those that stay: they score nothing beforehand."""

from __future__ import annotations

from compress.registry import scopes
from compress.score.scoring import ScoredScope


@scopes.add("update")
class Update(ScoredScope):
    """Neither groups nor single weights have a score; `compress.sparse.zero` calls the criterion for each matrix."""
