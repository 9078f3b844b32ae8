"""`effovpr serve`: answer questions to a map over HTTP."""

from __future__ import annotations

import argparse
import logging
import signal
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from effovpr_ros.cli.options import (
    Subparsers,
    add_device_options,
    add_recognizer_options,
    command,
    device_settings,
    given_recognizer_settings,
)
from effovpr_ros.cluster.replicas import Replicas
from effovpr_ros.core.errors import ConfigError, ServerError
from effovpr_ros.remote.tokens import TOKEN_VARIABLE, read_tokens
from effovpr_ros.serving.limits import Limits, Tokens

if TYPE_CHECKING:
    from effovpr_ros.serving.revisions import ServedMap
    from effovpr_ros.serving.running import Address

_PORT = 8321
_NEEDED = ("fastapi", "uvicorn", "prometheus_client")


def add_parser(commands: Subparsers, summary: str) -> None:
    """Add the command."""
    parser = command(commands, "serve", summary, "effovpr serve office --port 8321")
    parser.add_argument("map", type=Path, help="map folder")
    parser.add_argument("--host", default="127.0.0.1", help="interface to listen on; 0.0.0.0 for all")
    parser.add_argument("--port", type=int, default=_PORT, help="port to listen on")
    parser.add_argument(
        "--token-file",
        default="",
        metavar="FILE",
        help=f"file of tokens, one a line; a client needs one of them. Without it, those in the environment variable "
        f"{TOKEN_VARIABLE}",
    )
    parser.add_argument("--no-token", action="store_true", help="let everybody ask who can reach the server")
    parser.add_argument(
        "--tls-cert", default="", metavar="FILE", help="certificate chain (PEM); without it, nothing is encrypted"
    )
    parser.add_argument("--tls-key", default="", metavar="FILE", help="key of the certificate (PEM)")
    for entry in fields(Limits):
        option = f"--{entry.name.replace('_', '-')}"
        parser.add_argument(option, type=type(entry.default), default=entry.default, help=entry.metadata["description"])
    parser.add_argument(
        "--cluster",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="serve on the Ray cluster at this address; without one, on a cluster of this machine",
    )
    for entry in fields(Replicas):
        option, text = f"--{entry.name.replace('_', '-')}", f"with --cluster: {entry.metadata['description']}"
        parser.add_argument(option, type=type(entry.default), default=entry.default, help=text)
    parser.add_argument(
        "--watch-s", type=float, default=1.0, help="seconds between two looks at whether the map has changed"
    )
    add_recognizer_options(parser)
    add_device_options(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    on_cluster = options.cluster is not None
    missing = [name for name in (*_NEEDED, *(["ray"] if on_cluster else [])) if find_spec(name) is None]
    if missing:
        extra = "serve,cluster" if on_cluster else "serve"
        raise ServerError(f"{', '.join(missing)} is not installed; run `pip install 'effovpr_ros[{extra}]'`")
    from effovpr_ros.serving.revisions import ServedMap
    from effovpr_ros.serving.running import Address

    limits = Limits(**{entry.name: getattr(options, entry.name) for entry in fields(Limits)})
    address = Address(options.host, options.port, options.tls_cert, options.tls_key)
    tokens = [] if options.no_token else read_tokens(options.token_file, "--token-file")
    Tokens(tokens)
    if not (tokens or options.no_token or address.is_loopback):
        raise ConfigError(
            f"--host {options.host} lets everybody ask who reaches it; name a --token-file, set {TOKEN_VARIABLE}, or "
            "say --no-token"
        )
    # What is chosen and what changes is of interest to whoever runs a server.
    logging.getLogger("effovpr_ros").setLevel(logging.INFO)
    served = ServedMap(options.map, given_recognizer_settings(options), device_settings(options))
    if on_cluster:
        return _on_cluster(options, served, address, limits, tokens)
    from effovpr_ros.serving.app import create_app
    from effovpr_ros.serving.local import LocalService
    from effovpr_ros.serving.running import run

    with address.listen() as listening:
        service = LocalService(served, watch_s=options.watch_s)
        try:
            info = service.known_revisions.current.info
            print(f"map {info.name}: {info.places} places, revision {info.revision}", flush=True)
            _say_where(address, listening.getsockname()[1])
            run(create_app(service, limits, Tokens(tokens)), address, listening)
        finally:
            service.close()
    return 0


def _on_cluster(
    options: argparse.Namespace, served: ServedMap, address: Address, limits: Limits, tokens: list[str]
) -> int:
    from effovpr_ros.cluster.serving import ClusterServer, connect, serve_until

    replicas = Replicas(**{entry.name: getattr(options, entry.name) for entry in fields(Replicas)})
    ended = Event()
    connect(options.cluster)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    server = ClusterServer(served, address, limits, tokens, replicas)
    try:
        _say_where(address, address.port)
        serve_until(server, options.watch_s, ended.is_set)
    finally:
        server.close()
    return 0


def _say_where(address: Address, port: int) -> None:
    where = f"{address.scheme}://{address.host}:{port}"
    print(f"listening on {where}; its page is {where}/docs", flush=True)
