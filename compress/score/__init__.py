"""Scores: what a criterion is shown of a family, and one number per group of what it returns."""
