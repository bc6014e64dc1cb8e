"""One stack of runs in one process."""
