"""Configuration of every command; see config.yaml."""
