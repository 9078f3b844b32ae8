"""A small map, and a server of it in this process."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from synthetic import picture, tiny_extractor, tiny_weights

from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.mapping.build_config import BuildConfig
from effovpr_ros.mapping.builder import build_map
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.recognition.confidence import ConfidenceModel, setting_name, store_confidence_model
from effovpr_ros.recognition.evidence import FIGURES
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.serving.app import create_app
from effovpr_ros.serving.limits import Limits, Tokens
from effovpr_ros.serving.local import LocalService
from effovpr_ros.serving.revisions import ServedMap
from effovpr_ros.serving.running import Address, in_thread
from effovpr_ros.sources.frame import Frame

DATUM = Datum(GeoPoint(50.0, 8.0, 100.0))
TOKEN = "0123456789abcdef0123456789abcdef"


def small_map(folder: Path, name: str, first: int = 0, count: int = 8) -> Path:
    """Pictures 20 m apart along x; a picture of the map is a MATCH."""
    extractor = tiny_extractor(folder)
    # Log-odds of 2.5 where three quarters of the keypoints agree, a confidence of 0.924.
    weights = tuple(10.0 if figure == "consistent_share" else 0.0 for figure in FIGURES)
    setting = setting_name(extractor.fingerprint, RecognizerConfig())
    with PlaceMap.create(folder / name, fingerprint=extractor.fingerprint, datum=DATUM) as place_map:
        extend(place_map, folder, range(first, first + count))
        store_confidence_model(place_map, ConfidenceModel(setting, weights, -5.0, 0.924, 0.99, "by hand", 40, 0.0))
    return folder / name


def extend(place_map: PlaceMap, folder: Path, numbers: range) -> None:
    """Add pictures to an open map."""
    frames = [
        Frame(f"{n}.jpg", place_map.name, n, Pose.from_yaw(20.0 * n, 0.0, 0.5), None, lambda n=n: picture(n))
        for n in numbers
    ]
    build_map(place_map, tiny_extractor(folder), frames, BuildConfig())


def served(path: Path, **settings: object) -> ServedMap:
    """The map, by the tiny model on the CPU."""
    weights = str(tiny_weights(path.parent))
    return ServedMap(path, settings, {"weights": weights, "device": "cpu", "engine": "torch"})


@contextmanager
def server(
    path: Path,
    limits: Limits | None = None,
    tokens: tuple[str, ...] = (),
    address: Address | None = None,
    **settings: object,
) -> Iterator[tuple[str, LocalService]]:
    """A server of a map on a free port; its URL."""
    service = LocalService(served(path, **settings), watch_s=0.05)
    try:
        app = create_app(service, limits or Limits(rate_hz=0.0), Tokens(tokens))
        with in_thread(app, address or Address(port=0)) as url:
            yield url, service
    finally:
        service.close()


def certificate(folder: Path) -> tuple[str, str]:
    """A certificate that signs itself for this machine, and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    subprocess.run(command, check=True, capture_output=True)
    return str(cert), str(key)
