"""Recipes: one flat, readable file per task, from a configuration to a checkpoint and its results."""
