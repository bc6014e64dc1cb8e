"""What everything above the optimizer stands on: errors, words, signals, processes."""
