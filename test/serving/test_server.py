"""A server of maps, asked over real sockets; the model is a tiny one."""

from __future__ import annotations

import http.client
import json
import random
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytest.importorskip("fastapi", reason="needs the extra [serve]")

from served import DATUM, TOKEN, certificate, extend, server, small_map
from synthetic import jpeg, picture, tiny_extractor, tiny_weights

from effovpr_ros.api import open_map
from effovpr_ros.core.cameras import CameraModel
from effovpr_ros.core.errors import ServerError
from effovpr_ros.core.images import decode_image
from effovpr_ros.core.mounted_cameras import MountedCamera
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.sharding import shard_map
from effovpr_ros.recognition.answer import Hint
from effovpr_ros.recognition.third_stage import point_extractor
from effovpr_ros.remote.answers import answer_record
from effovpr_ros.remote.client import MapServer, QuestionOptions, Reach
from effovpr_ros.remote.queries import FeatureQuery, encode_query
from effovpr_ros.serving.limits import Limits
from effovpr_ros.serving.running import Address


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("served")
    small_map(made, "house")
    return made


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with server(folder / "house", verify="on") as (address, _):
        yield address


@pytest.fixture
def client(url: str) -> Iterator[MapServer]:
    asked = MapServer(url, timeout_s=20.0)
    yield asked
    asked.close()


def ask(url: str, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, object], object]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20.0)
    try:
        connection.request(method, path, body or None, {name.replace("_", "-"): text for name, text in headers.items()})
        response = connection.getresponse()
        return response.status, json.loads(response.read()), response.headers
    finally:
        connection.close()


def query_of(folder: Path, number: int, points: bool = True) -> tuple[FeatureQuery, bytes]:
    extractor, image = tiny_extractor(folder), picture(number)
    found = point_extractor("cpu").extract(image) if points else None
    query = FeatureQuery(extractor.extract([image])[0], (96, 72), found)
    return query, encode_query(query, extractor.fingerprint)


def test_a_picture_is_answered_as_the_library_answers_it(client: MapServer, folder: Path):
    weights = str(tiny_weights(folder))
    picture_5 = jpeg(picture(5))
    with open_map(folder / "house", weights=weights, device="cpu", engine="torch", settings={"verify": "on"}) as house:
        expected = answer_record(house.recognize(decode_image(picture_5, "picture")), 3)
    answers = client.localize_image(picture_5, QuestionOptions(candidates=3))
    (result,) = answers.results
    assert (answers.map, result.status, result.candidates[0].place_id) == ("house", "MATCH", 5)
    # Another number of threads adds up in another order.
    likeness = [item.similarity for item in expected.candidates]
    assert [item.similarity for item in result.candidates] == pytest.approx(likeness, abs=1e-5)
    same = tuple(replace(item, similarity=s) for item, s in zip(result.candidates, likeness, strict=True))
    assert replace(result, latency_ms=expected.latency_ms, candidates=same) == expected
    assert result.latency_ms.extract > 0.0
    assert result.latency_ms.total >= result.latency_ms.extract
    assert result.pose is not None and result.pose.position_xyz[0] == 100.0
    assert result.geo is not None and result.geo.latitude == pytest.approx(DATUM.to_geo((100.0, 0.0, 0.0)).latitude_deg)
    assert client.reach is Reach.OK


@pytest.mark.parametrize("points", [True, False])
def test_features_are_answered_as_their_picture_is(client: MapServer, folder: Path, points: bool):
    query, data = query_of(folder, 3, points)
    assert len(data) < 60_000
    (result,) = client.localize_features(data).results
    assert (result.status, result.candidates[0].place_id) == ("MATCH", 3)
    assert result.latency_ms.extract == 0.0
    # Without points there is nothing to verify.
    assert (result.candidates[0].points is not None) == points
    assert len(query.features.local) == 16


def test_a_hint_leaves_out_what_is_elsewhere(client: MapServer, url: str):
    (result,) = client.localize_image(jpeg(picture(5)), QuestionOptions(hint=Hint((40.0, 0.0, 0.0), 25.0))).results
    assert {item.place_id for item in result.candidates} == {1, 2, 3}
    geo = DATUM.to_geo((40.0, 0.0, 0.0))
    path = f"/v1/localize?hint_latitude={geo.latitude_deg}&hint_longitude={geo.longitude_deg}&hint_radius_m=25"
    status, answer, _ = ask(url, "POST", path, jpeg(picture(5)), Content_Type="image/jpeg")
    assert status == 200
    assert {item["place_id"] for item in answer["results"][0]["candidates"]} == {1, 2, 3}


def test_a_camera_may_be_told(client: MapServer):
    camera = MountedCamera(CameraModel((96, 72), (80.0, 80.0), (47.5, 35.5), "plumb_bob", (0.1, 0.0, 0.0, 0.0)))
    (result,) = client.localize_image(jpeg(picture(5)), QuestionOptions(camera=camera)).results
    # The map keeps no camera, which is said: nothing is measured.
    assert result.measured == "no calibration: the map keeps none for session 'house'"


def test_the_map_is_described(client: MapServer, folder: Path, url: str):
    info = client.info()
    assert (info.name, info.places, info.sessions, info.frame_id, info.shards) == ("house", 8, 1, "map", 1)
    assert info.model == tiny_extractor(folder).fingerprint
    assert info.extent is not None and (info.extent.min_x, info.extent.max_x) == (0.0, 140.0)
    assert info.datum is not None and info.datum.latitude == 50.0
    assert decode_image(client.get("/v1/places/3/picture", timeout_s=20.0), "picture").shape[2] == 3
    assert ask(url, "GET", "/v1/places/99/picture")[0] == 404
    assert ask(url, "GET", "/health/ready")[:2] == (200, {"status": "ready"})
    paths = ask(url, "GET", "/openapi.json")[1]["paths"]
    assert {"/v1/localize", "/v1/localize_features", "/v1/map", "/health/live", "/metrics"} <= set(paths)
    metrics = client.get("/metrics", timeout_s=20.0).decode()
    assert 'effovpr_requests_total{path="/v1/map",status="200"}' in metrics
    assert "effovpr_places 8.0" in metrics
    assert 'effovpr_stage_seconds_count{stage="search"}' in metrics


def test_features_of_another_model_are_refused_by_name(client: MapServer, folder: Path, url: str):
    query, _ = query_of(folder, 3)
    other = replace(tiny_extractor(folder).fingerprint, architecture="vit_other", image_size=70)
    data = encode_query(query, other)
    path, kind = "/v1/localize_features", "application/vnd.effovpr.features"
    status, answer, _ = ask(url, "POST", path, data, Content_Type=kind)
    assert status == 409
    assert "architecture: vit_tiny_test_patch14 != vit_other" in answer["error"]
    assert "image_size: 56 != 70" in answer["error"]
    with pytest.raises(ServerError, match=r"refuses \(409\): .*vit_other"):
        client.localize_features(data)
    assert client.reach is Reach.REFUSES


@pytest.mark.parametrize(
    ("path", "body", "kind", "status", "said"),
    [
        ("/v1/localize", b"", "image/jpeg", 400, "empty"),
        ("/v1/localize", b"noise", "image/jpeg", 400, "no JPEG or PNG"),
        ("/v1/localize", b"\xff\xd8\xff" + bytes(100), "image/jpeg", 400, "the picture"),
        ("/v1/localize", b"noise", "text/plain", 415, "text/plain"),
        ("/v1/localize?hint_x=1", b"noise", "image/jpeg", 422, "hint_radius_m"),
        ("/v1/localize?hint_x=nan&hint_y=0&hint_radius_m=5", b"noise", "image/jpeg", 422, "not finite"),
        ("/v1/localize?hint_x=0&hint_y=0&hint_radius_m=-5", b"noise", "image/jpeg", 422, "not positive"),
        ("/v1/localize?hint_latitude=91&hint_longitude=0&hint_radius_m=5", b"noise", "image/jpeg", 422, "latitude 91"),
        ("/v1/localize?candidates=many", b"noise", "image/jpeg", 422, "candidates"),
        ("/v1/localize?candidates=0", b"noise", "image/jpeg", 422, "candidates"),
        ("/v1/localize?fx=100", jpeg(picture(1)), "image/jpeg", 422, "fx, fy, cx and cy"),
        ("/v1/localize?fx=0&fy=1&cx=1&cy=1", jpeg(picture(1)), "image/jpeg", 422, "focal length"),
        ("/v1/localize?fx=9&fy=9&cx=1&cy=1&camera_pose=1", jpeg(picture(1)), "image/jpeg", 422, "camera_pose"),
        ("/v1/localize?fx=9&fy=9&cx=1&cy=1&camera_size=9", jpeg(picture(1)), "image/jpeg", 422, "WIDTHxHEIGHT"),
        ("/v1/localize?fx=9&fy=9&cx=1&cy=1&distortion=a", jpeg(picture(1)), "image/jpeg", 422, "distortion"),
        ("/v1/localize_features", b"noise", "application/octet-stream", 422, "EVQ1"),
        ("/v1/nothing", b"noise", "image/jpeg", 404, "Not Found"),
        ("/v1/map", b"noise", "image/jpeg", 405, "Method Not Allowed"),
    ],
)
def test_what_is_wrong_is_said(url: str, path: str, body: bytes, kind: str, status: int, said: str):
    answered, answer, _ = ask(url, "POST", path, body, Content_Type=kind)
    assert answered == status
    assert said in answer["error"]
    assert "\n" not in answer["error"]


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Features with bytes that are changed, left out, added or put elsewhere."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(min(len(changed), 1200)) if rng.random() < 0.8 else rng.randrange(len(changed))
        kind = rng.randrange(4)
        if kind == 0:
            changed[at] = rng.randrange(256)
        elif kind == 1:
            del changed[at : at + rng.randint(1, 200)]
        elif kind == 2:
            changed[at:at] = rng.randbytes(rng.randint(1, 200))
        else:
            changed = changed[: at + 1]
    return bytes(changed)


def test_damaged_features_are_refused_or_answered_and_nothing_else_happens(client: MapServer, url: str, folder: Path):
    query, sound = query_of(folder, 3)
    rng = random.Random(0)
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20.0)
    headers, refused = {"Content-Type": "application/octet-stream"}, 0
    for _ in range(200):
        connection.request("POST", "/v1/localize_features", damaged(sound, rng), headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
        # A byte within the codes is another picture's, which may be asked about.
        assert response.status in (200, 409, 413, 422, 400), answer
        refused += response.status != 200
        assert response.status == 200 or answer["error"]
    connection.close()
    assert refused > 100
    assert client.localize_features(sound).results[0].candidates[0].place_id == 3
    assert len(query.features.local) == 16


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01 this is no HTTP\r\n\r\n",
        b"POST /v1/localize HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/localize HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\nZ\r\n",
        b"POST /v1/localize HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: nonsense\r\n\r\nnoise",
        b"GET /v1/map HTTP/1.1\r\nHost: x\r\n" + b"X-Long: " + b"a" * 1_000_000 + b"\r\n\r\n",
        b"GET " + b"/" * 50_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(url: str, client: MapServer, sent: bytes, caplog: pytest.LogCaptureFixture):
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), 20.0) as raw:
        raw.sendall(sent)
        reply = raw.recv(65536)
    assert reply.startswith(b"HTTP/1.1 4")
    assert client.info().places == 8
    # Nobody is told of a fault of this server.
    assert "Traceback" not in caplog.text


def test_tokens_limits_and_tls(folder: Path, tmp_path: Path):
    cert, key = certificate(tmp_path)
    limits = Limits(rate_hz=1.0, max_megabytes=0.01)
    address = Address(port=0, tls_cert=cert, tls_key=key)
    with server(folder / "house", limits, ("another-token-0123456789", TOKEN), address) as (url, _):
        assert url.startswith("https://")
        small = jpeg(picture(5, 32, 24))
        with MapServer(url, token=TOKEN, ca_file=cert, timeout_s=20.0) as client:
            assert client.localize_image(small).map == "house"
            with pytest.raises(ServerError, match=r"refuses \(413\): the body has more than 10000 bytes"):
                client.localize_image(jpeg(picture(5)) + bytes(10_000))
            # Two at once, then one a second: the next must wait.
            with pytest.raises(ServerError, match=r"refuses \(429\): .*; ask again in 1 s"):
                for _ in range(3):
                    client.localize_image(small)
        for wrong in ("", "0123456789abcdef0123456789abcdeF"):
            with (
                MapServer(url, token=wrong, ca_file=cert, timeout_s=20.0) as client,
                pytest.raises(ServerError, match=r"refuses \(401\): no valid token.*; name the file with its token"),
            ):
                client.info()
        with MapServer(url, token=TOKEN, timeout_s=20.0) as client:
            with pytest.raises(ServerError, match="a certificate that is not trusted: self-signed certificate"):
                client.info()
            assert client.reach is Reach.REFUSES


def test_a_server_that_is_gone_or_late_is_said_to_be_so(folder: Path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with MapServer(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.2) as client:
            started_s = time.monotonic()
            with pytest.raises(ServerError, match=r"has not answered within 0\.2 s"):
                client.info()
            assert time.monotonic() - started_s < 5.0
            assert (client.reach, client.late, client.failures) == (Reach.LATE, 1, 1)
        port = silent.getsockname()[1]
    with MapServer(f"http://127.0.0.1:{port}", timeout_s=20.0) as client:
        with pytest.raises(ServerError, match="cannot be reached: Connection refused"):
            client.info()
        assert client.reach is Reach.GONE


def test_a_connection_that_tls_has_ended_is_opened_again(client: MapServer, monkeypatch: pytest.MonkeyPatch):
    assert client.info().places == 8

    def ended(*_: object) -> None:
        raise ssl.SSLEOFError("EOF occurred in violation of protocol")

    # What writing on a connection of TLS raises that the server has ended while it was idle; it is no ConnectionError.
    monkeypatch.setattr(client._connection._connection, "request", ended)
    assert client.info().places == 8
    assert (client.repeated, client.failures, client.reach) == (1, 0, Reach.OK)


def test_a_newer_revision_answers_without_a_failed_question(tmp_path: Path):
    path = small_map(tmp_path, "house", count=4)
    with server(path) as (url, service):
        failures: list[BaseException] = []
        revisions: set[str] = set()
        ended = threading.Event()

        def keep_asking() -> None:
            with MapServer(url, timeout_s=30.0) as client:
                while not ended.is_set():
                    try:
                        revisions.add(client.localize_image(jpeg(picture(2))).revision)
                    except BaseException as error:
                        failures.append(error)

        threads = [threading.Thread(target=keep_asking) for _ in range(4)]
        for thread in threads:
            thread.start()
        for first in (4, 6, 8):
            with PlaceMap.open(path, writable=True) as place_map:
                extend(place_map, tmp_path, range(first, first + 2))
            deadline = time.monotonic() + 30.0
            while service.revisions.current.info.places < first + 2:
                assert time.monotonic() < deadline, "no newer revision"
                time.sleep(0.01)
        ended.set()
        for thread in threads:
            thread.join(30.0)
        assert not failures
        assert len(revisions) >= 2
        with MapServer(url, timeout_s=30.0) as client:
            assert client.info().places == 10
            assert client.localize_image(jpeg(picture(9))).results[0].candidates[0].place_id == 9
        # A newer one that cannot be opened changes nothing, and is told of.
        text = (path / "map.yaml").read_text()
        (path / "map.yaml").write_text(text.replace("num_places: 10", "num_places: 11"))
        deadline = time.monotonic() + 30.0
        while not service.revisions.problem:
            assert time.monotonic() < deadline, "no problem was noticed"
            time.sleep(0.01)
        with MapServer(url, timeout_s=30.0) as client:
            assert client.info().places == 10
            assert b"effovpr_newer_revision_refused 1.0" in client.get("/metrics", timeout_s=20.0)


def test_a_map_in_shards_is_served_as_the_one_map(folder: Path, tmp_path: Path):
    shard_map(folder / "house", tmp_path / "cut", num_shards=3)
    (tmp_path / "vit_tiny_test_patch14.safetensors").write_bytes(tiny_weights(folder).read_bytes())
    with server(folder / "house") as (whole, _), server(tmp_path / "cut") as (cut, service):
        assert service.revisions.current.info.shards == 3
        with MapServer(whole, timeout_s=20.0) as one, MapServer(cut, timeout_s=20.0) as three:
            assert three.info().extent == one.info().extent
            for number in (1, 6):
                (expected,), (answered,) = (c.localize_image(jpeg(picture(number))).results for c in (one, three))
                assert replace(answered, latency_ms=expected.latency_ms) == expected
            assert three.get("/v1/places/7/picture", timeout_s=20.0) == one.get("/v1/places/7/picture", timeout_s=20.0)
