"""Runs the application in this process, until it is told to end."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Thread
from typing import Any

import uvicorn

from effovpr_ros.core.errors import ConfigError, ServerError

# An idle connection of TLS ends only when its client says so.
_STOP_S = 3
# Of an idle connection; a robot that stands still asks again some time.
_KEEP_ALIVE_S = 75
_LARGEST_HEADERS = 2**15


@dataclass(frozen=True)
class Address:
    """Where a server listens.

    Attributes:
        host: name or number of an interface.
        port: 0: any that is free.
        tls_cert: certificate chain (PEM); empty: unencrypted.
        tls_key: its key (PEM).
    """

    host: str = "127.0.0.1"
    port: int = 8321
    tls_cert: str = ""
    tls_key: str = ""

    def __post_init__(self) -> None:
        """Refuse a certificate that cannot be used, before anything is loaded.

        Raises:
            ConfigError: it cannot be read, its key does not fit, or only one of both is there.
        """
        if not 0 <= self.port < 2**16:
            raise ConfigError(f"port {self.port} is outside [0, {2**16 - 1}]")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ConfigError("TLS needs both, a certificate and its key: --tls-cert and --tls-key")
        if self.tls_cert:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.tls_cert, self.tls_key)
            except OSError as error:
                raise ConfigError(
                    f"certificate {self.tls_cert} with key {self.tls_key} cannot be used: {error.strerror or error}; "
                    "name a chain and its key in PEM files (docs/serving.md has a command that makes both for a try)"
                ) from error

    @property
    def is_loopback(self) -> bool:
        """Whether programs of this machine alone can reach it."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")

    @property
    def scheme(self) -> str:
        """Of URLs."""
        return "https" if self.tls_cert else "http"

    def listen(self) -> socket.socket:
        """A socket that is bound, so that a port in use is found before a model is loaded.

        Raises:
            ServerError: the port is in use, or the interface is none of this machine's.
        """
        try:
            family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
            listening = socket.socket(family)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((self.host, self.port))
        except OSError as error:
            raise ServerError(f"{self.host}:{self.port} cannot be listened on: {error.strerror or error}") from error
        return listening


def _server(app: Any, address: Address) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            app,
            ssl_certfile=address.tls_cert or None,
            ssl_keyfile=address.tls_key or None,
            log_config=None,
            access_log=False,
            lifespan="off",
            http="h11",
            h11_max_incomplete_event_size=_LARGEST_HEADERS,
            timeout_graceful_shutdown=_STOP_S,
            timeout_keep_alive=_KEEP_ALIVE_S,
            server_header=False,
        )
    )


def run(app: Any, address: Address, listening: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM; questions at hand are answered first."""
    # Who connects from now on waits, where he was refused while a model was loaded.
    listening.listen()
    _server(app, address).run(sockets=[listening])


@contextlib.contextmanager
def in_thread(app: Any, address: Address) -> Iterator[str]:
    """Serve in a thread as long as the context lasts; gives the URL."""
    with address.listen() as listening:
        listening.listen()
        server = _server(app, address)
        thread = Thread(target=server.run, kwargs={"sockets": [listening]}, name="http", daemon=True)
        thread.start()
        try:
            yield f"{address.scheme}://{address.host}:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(2.0 * _STOP_S)
