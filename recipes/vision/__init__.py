"""Image data, models and pictures of the recipe ``image``."""
