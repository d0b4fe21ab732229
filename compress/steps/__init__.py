"""Kinds of steps: what each verb of a recipe decides, and what it makes of a model. One file or folder a kind."""
