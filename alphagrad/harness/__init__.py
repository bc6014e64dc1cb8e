"""What recipes are written against."""
