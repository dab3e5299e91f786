"""Recipes: one flat, readable file per task, from a configuration to a checkpoint and its results.

Each has the task's name and two functions: ``run`` trains and evaluates, ``evaluate`` judges a checkpoint on a split.
"""
