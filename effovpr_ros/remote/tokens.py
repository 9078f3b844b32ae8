"""Names of servers and the tokens that open them: never in an argument or parameter, which others can read."""

from __future__ import annotations

import os
from pathlib import Path

from effovpr_ros.core.errors import ConfigError

TOKEN_VARIABLE = "EFFOVPR_TOKEN"
"""Environment variable with the token, where no file is named."""

_LONGEST_TOKEN = 4096


def is_server(text: str) -> bool:
    """Whether somebody named a server rather than a folder."""
    return text.startswith(("https://", "http://"))


def read_tokens(path: str, what: str) -> list[str]:
    """Tokens, one a line; empty lines and those that begin with # are left out.

    Args:
        path: of the file; empty: those of the environment variable `EFFOVPR_TOKEN`, none where it is not set.
        what: named the file, for the message.

    Raises:
        ConfigError: the file cannot be read, or holds none.
    """
    if not path:
        return os.environ.get(TOKEN_VARIABLE, "").split()
    try:
        with Path(path).expanduser().open(encoding="ascii") as file:
            lines = file.read(_LONGEST_TOKEN * 256).splitlines()
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{what} {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    tokens = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not tokens or max(map(len, tokens)) > _LONGEST_TOKEN or any(" " in token for token in tokens):
        raise ConfigError(f"{what} {path} holds no token; write one, without spaces, on a line of its own")
    return tokens
