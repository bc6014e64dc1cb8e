"""Recipes: what is trained, over a stack of runs."""
