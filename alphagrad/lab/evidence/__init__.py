"""What the store tells of studies; never imports torch."""
