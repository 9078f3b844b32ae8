"""How a map that a server has is asked."""

from __future__ import annotations

from dataclasses import dataclass

from effovpr_ros.core.settings import choice, ranged, setting
from effovpr_ros.remote.client import MapServer
from effovpr_ros.remote.tokens import read_tokens

FEATURES, JPEG = "features", "jpeg"


@dataclass(frozen=True)
class ServerConfig:
    """How the server of `map_path` https://... is asked; read when the node is configured."""

    server_query: str = choice(
        FEATURES,
        (FEATURES, JPEG),
        "What the server is asked with: features that this node extracts, or JPEG pictures, "
        "for which it needs no model.",
    )
    server_timeout_s: float = ranged(
        1.0,
        0.01,
        60.0,
        "Longest time to wait for the server's answer to an image, in seconds; then the image has no answer.",
    )
    server_token_file: str = setting(
        "", "File with the token of the server; empty: the environment variable EFFOVPR_TOKEN, if it is set."
    )
    server_cache: str = setting(
        "",
        "Folder in which shards of the served map near the last known place are kept, so that the node goes on alone; "
        "empty: none. Needs server_query features.",
    )
    server_cache_radius_m: float = ranged(
        500.0, 0.0, 1e6, "Shards of the served map within this distance of the last known place are kept, in metres."
    )
    server_cache_megabytes: int = ranged(
        2000, 1, 10**7, "Size of all shards that are kept, in megabytes; nearer ones are kept first."
    )
    server_ca_file: str = setting(
        "", "File of certificates (PEM) by which the server's certificate is signed; empty: those of the system."
    )


def connect(url: str, config: ServerConfig) -> MapServer:
    """A connection to a server, which is not asked yet.

    Raises:
        ConfigError: no such address, or no token in the file.
    """
    tokens = read_tokens(config.server_token_file, "server_token_file")
    token = tokens[0] if tokens else ""
    return MapServer(url, token=token, ca_file=config.server_ca_file, timeout_s=config.server_timeout_s)
