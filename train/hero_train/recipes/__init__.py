"""Recipes: one flat, readable file per task, from a configuration to a checkpoint and its results.

Each has the task's name and three functions: ``run`` trains and evaluates, ``evaluate`` judges a checkpoint on a split, ``predict``
writes what it says about one. (Pre-training has ``run`` only.)
"""
