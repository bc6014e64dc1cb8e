"""The laboratory: configuration, runs, tracking and results."""
