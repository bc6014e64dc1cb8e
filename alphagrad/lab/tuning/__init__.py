"""Searching optimizers alike."""
