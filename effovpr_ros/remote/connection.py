"""One connection of HTTP that is kept, with a time by which each exchange ends, by the standard library alone."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from effovpr_ros.core.errors import ConfigError

_ATTEMPTS = 3
_PAUSE_S = 0.05


@dataclass(frozen=True)
class Reply:
    """What a server sent.

    Attributes:
        status: of HTTP.
        body: all of it.
        retry_after: header of that name; empty without it.
    """

    status: int
    body: bytes
    retry_after: str


class Connection:
    """To one server; for one thread, but for `hang_up`.

    Attributes:
        is_encrypted: by TLS.
        repeated: requests that were made again.
    """

    def __init__(self, url: str, ca_file: str) -> None:
        """Connect to nothing yet.

        Args:
            url: `https://HOST[:PORT][/PATH]` or `http://...`.
            ca_file: certificates that are trusted (PEM); empty for the system's.

        Raises:
            ConfigError: no such address, or the certificates cannot be read.
        """
        try:
            parts = urlsplit(url)
            self._port = parts.port
        except ValueError as error:
            raise ConfigError(f"address {url!r} of a server cannot be read: {error}") from error
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.query or parts.fragment:
            raise ConfigError(f"address {url!r} of a server is not of the form https://HOST:PORT")
        if parts.username or parts.password:
            raise ConfigError("the address of a server must not hold a password; name a file with the token")
        self._host, self._base = parts.hostname, parts.path.rstrip("/")
        self._tls: ssl.SSLContext | None = None
        self.is_encrypted = parts.scheme == "https"
        if self.is_encrypted:
            try:
                self._tls = ssl.create_default_context(cafile=ca_file or None)
            except OSError as error:
                raise ConfigError(f"certificates {ca_file} cannot be read: {error.strerror or error}") from error
        self._connection: http.client.HTTPConnection | None = None
        self.repeated = 0

    def exchange(
        self,
        method: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        ends_s: float,
        largest: int,
        sink: BinaryIO | None = None,
    ) -> Reply:
        """One request; again where the connection was closed meanwhile, or a part of the server has just died.

        Args:
            method: of HTTP; what is asked changes nothing, so that it may be asked twice.
            path: below that of the URL.
            body: may be empty.
            headers: beside those of every request.
            ends_s: by `time.monotonic`.
            largest: a longer body is refused.
            sink: takes the body of an answer instead.

        Raises:
            TimeoutError: not done by then.
            OSError: out of reach, or a certificate that is not trusted.
            HTTPException: what came is no HTTP, or too long.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                reply = self._once(method, path, body, headers, ends_s, largest, sink)
            except (TimeoutError, ssl.SSLCertVerificationError):
                self.hang_up()
                raise
            except (OSError, http.client.HTTPException):
                # A server that closes an idle connection of TLS without a word is no ConnectionError.
                self.hang_up()
                if attempt == _ATTEMPTS:
                    raise
            else:
                if reply.status < http.HTTPStatus.INTERNAL_SERVER_ERROR or attempt == _ATTEMPTS:
                    return reply
            self.repeated += 1
            time.sleep(max(0.0, min(_PAUSE_S * attempt, ends_s - time.monotonic())))
        raise TimeoutError

    def hang_up(self) -> None:
        """Close the connection, which wakes a thread that waits for it; the next exchange opens another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(OSError):
                if connection.sock is not None:
                    # Closing alone does not wake it.
                    connection.sock.shutdown(socket.SHUT_RDWR)
            with suppress(OSError):
                connection.close()

    def _once(
        self,
        method: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        ends_s: float,
        largest: int,
        sink: BinaryIO | None,
    ) -> Reply:
        connection, left_s = self._connection, ends_s - time.monotonic()
        if left_s <= 0.0:
            raise TimeoutError
        if connection is None:
            kind: Any = http.client.HTTPConnection
            more: dict[str, Any] = {}
            if self._tls is not None:
                kind, more = http.client.HTTPSConnection, {"context": self._tls}
            connection = self._connection = kind(self._host, self._port, timeout=left_s, **more)
        elif connection.sock is not None:
            connection.sock.settimeout(left_s)
        connection.request(method, self._base + path, body or None, dict(headers))
        response = connection.getresponse()
        parts: list[bytes] = []
        size = 0
        if sink is not None:
            sink.seek(0)
            sink.truncate()
        while part := response.read(2**20):
            if sink is not None and response.status == http.HTTPStatus.OK:
                sink.write(part)
            else:
                parts.append(part)
            size += len(part)
            if size > largest:
                raise http.client.HTTPException(f"an answer of more than {largest} bytes")
            if time.monotonic() > ends_s:
                raise TimeoutError
        return Reply(response.status, b"".join(parts), response.headers.get("Retry-After", ""))
