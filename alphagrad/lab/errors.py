"""The error of a user's settings: one line that names the setting, the value and what is allowed."""


class ConfigError(Exception):
    """A setting is wrong or something it points to cannot be used; nothing has been started."""
