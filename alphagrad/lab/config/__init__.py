"""Words become checked objects."""
