"""What a server said, as records of this package."""

from __future__ import annotations

from typing import TypeVar

from effovpr_ros.core.errors import ConfigError, ServerError
from effovpr_ros.core.records import read_record

Record = TypeVar("Record")


def read_from_server(kind: type[Record], values: object, what: str, where: str) -> Record:
    """A record of what JSON held.

    Args:
        kind: of the record.
        values: as JSON gave them.
        what: they are, for the message.
        where: they come from, for the message.

    Raises:
        ServerError: another form.
    """
    try:
        return read_record(kind, values, what)
    except ConfigError as error:
        raise ServerError(f"{where}: {error}; do both sides run the same version of this package?") from error
