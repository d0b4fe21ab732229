"""The scopes of criteria, one file each: from what a criterion returns to scores of groups or of single weights."""
