"""Where the store is: its address from settings and environment, whole, and as it may be shown."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from urllib.parse import unquote

from alphagrad.common.errors import ConfigError
from alphagrad.common.words import cut

NONE = "none"
"""The address that stands for no tracking at all."""
ENVIRONMENT = "MLFLOW_TRACKING_URI"
HANDED = "ALPHAGRAD_TRACKING_URI"
"""Environment variable that hands an address with its password to the processes of a study."""
MASK = "***"
_KEYS = re.compile(r"(?i)([?&][a-z_]*(?:password|passwd|pwd|token|secret)=)([^&\s]*)")
_ADDRESS = re.compile(r"""[A-Za-z][A-Za-z0-9+.-]*://[^\s'"`<>]+""")
_secrets: set[str] = set()
"""Passwords of the addresses that this process has seen, and what they are made of."""


def store_uri(uri: str | None, output_root: str | Path) -> str:
    """The store's address: ``uri``, else $MLFLOW_TRACKING_URI, else the file mlflow.db in ``output_root``.

    A relative SQLite file is one of the working directory's. A password that was masked comes from the environment.

    Raises:
        ConfigError: it is not there, or the place is no path that a system takes.
    """
    uri = uri or os.environ.get(ENVIRONMENT)
    if not uri:
        return f"sqlite:///{_home('output_root', output_root).resolve() / 'mlflow.db'}"
    file = sqlite_file(uri)
    if file is not None:
        return f"sqlite:///{os.path.abspath(_home('tracking.uri', file))}"
    whole = _whole(uri)
    _secrets.update(_parts(whole))
    return whole


def _home(setting: str, path: str | Path) -> Path:
    """A path whose ``~`` is written out; :class:`ConfigError` for an unknown user's, or one that is too long."""
    try:
        whole = Path(path).expanduser()
        whole.exists()
    except (OSError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"{setting}={cut(path)}: is no path that can be used here ({why})") from error
    return whole


def kept_uri(uri: str | None, output_root: str | Path) -> str | None:
    """What a configuration keeps of the address: absolute and without password, which goes to the environment.

    None where the store is the file in ``output_root``.
    """
    if not uri and not os.environ.get(ENVIRONMENT):
        return None
    whole = store_uri(uri, output_root)
    if masked(whole) != whole:
        os.environ[HANDED] = whole
    return masked(whole)


def sqlite_file(uri: str) -> Path | None:
    """The file behind a SQLite address, None for another kind of store."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def is_server(uri: str) -> bool:
    """Whether an MLflow server is behind the address."""
    return uri.startswith(("http://", "https://"))


def masked(uri: str) -> str:
    """The address as it may be shown and kept: ``***`` in place of a password."""
    scheme, found, rest = uri.partition("://")
    if not found or scheme.startswith("sqlite"):
        return uri
    account, at, place = rest.rpartition("@")  # a password that is not quoted may hold an @, too
    if at:
        user, colon, _ = account.partition(":")
        account = f"{user}:{MASK}" if colon else MASK if is_server(uri) else account  # a token, perhaps
    return _KEYS.sub(rf"\1{MASK}", f"{scheme}://{account}{at}{place}")


def _whole(uri: str) -> str:
    if masked(uri) != uri or MASK not in uri:
        return uri
    for name in (HANDED, ENVIRONMENT):
        known = os.environ.get(name, "")
        if known != uri and masked(known) == uri:
            return known
    raise ConfigError(f"tracking.uri={uri}: its password is kept nowhere; give the whole address in ${ENVIRONMENT}")


def _parts(uri: str) -> set[str]:
    """What must not be shown of an address: its passwords, also in pieces, as a driver tells them that misreads one."""
    account, _, _ = uri.partition("://")[2].rpartition("@")
    user, colon, password = account.partition(":")
    if account and not colon and is_server(uri):
        password = user
    found = [password, *(value for _, value in _KEYS.findall(uri))]
    found += [unquote(secret) for secret in found]
    found += [piece for secret in found for piece in re.split(r"[@/?#:&]", secret) if len(piece) > 3]
    return {secret for secret in found if len(secret) > 2 and secret != MASK}


def hide(text: str) -> str:
    """The text without the passwords of addresses in it, and of those that this process has seen."""
    text = _ADDRESS.sub(lambda match: masked(match[0]), text)
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


class HidingFilter(logging.Filter):
    """Keeps passwords out of a log, tracebacks included."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = hide(record.getMessage()), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = hide(logging.Formatter().formatException(record.exc_info))
        return True


logging.getLogger("alphagrad").addFilter(HidingFilter())
