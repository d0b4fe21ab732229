"""Recipes: a short YAML list of steps, validated before anything runs."""

from compress.recipe.part import Part
from compress.recipe.prune import Budget, Prune
from compress.recipe.read import parse_recipe, read_recipe
from compress.recipe.schema import Calibrate, Recipe, json_schema

__all__ = ["Budget", "Calibrate", "Part", "Prune", "Recipe", "json_schema", "parse_recipe", "read_recipe"]
