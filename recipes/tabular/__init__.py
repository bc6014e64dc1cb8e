"""Regression on tables of numbers: data, networks, and what is called stable."""
