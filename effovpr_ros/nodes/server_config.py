"""How a map that a server has is asked."""

from __future__ import annotations

from dataclasses import dataclass

from effovpr_ros.core.settings import choice, ranged, setting

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
    server_ca_file: str = setting(
        "", "File of certificates (PEM) by which the server's certificate is signed; empty: those of the system."
    )
