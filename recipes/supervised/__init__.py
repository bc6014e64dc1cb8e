"""What recipes that learn from labelled data share: schedules, precision, averaging, parallel training."""
