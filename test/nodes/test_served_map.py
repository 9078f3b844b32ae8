"""The node against a real server of its map, over DDS and TLS; the model is a tiny one."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy")
pytest.importorskip("fastapi", reason="needs the extra [serve]")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from geometry_msgs.msg import PoseWithCovarianceStamped  # noqa: E402
from harness import Harness, image_message  # noqa: E402
from lifecycle_msgs.msg import State, Transition  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from sensor_msgs.msg import NavSatFix  # noqa: E402
from served import DATUM, TOKEN, certificate, extend, served, server, small_map  # noqa: E402
from synthetic import picture, tiny_weights  # noqa: E402

from effovpr_ros.api import open_map  # noqa: E402
from effovpr_ros.core.errors import MapError  # noqa: E402
from effovpr_ros.mapping.place_map import PlaceMap  # noqa: E402
from effovpr_ros.mapping.sharded_map import open_map as open_map_folder  # noqa: E402
from effovpr_ros.mapping.sharding import shard_map  # noqa: E402
from effovpr_ros.msg import PlaceMatch  # noqa: E402
from effovpr_ros.nodes.map_paths import map_folder, map_server  # noqa: E402
from effovpr_ros.nodes.place_recognizer import PlaceRecognizerNode  # noqa: E402
from effovpr_ros.serving.app import create_app  # noqa: E402
from effovpr_ros.serving.limits import Limits, Tokens  # noqa: E402
from effovpr_ros.serving.local import LocalService  # noqa: E402
from effovpr_ros.serving.running import Address, in_thread  # noqa: E402
from effovpr_ros.srv import LoadMap, Localize  # noqa: E402

NAME = "/place_recognizer"


@dataclass(frozen=True)
class Files:
    folder: Path
    cert: str
    key: str
    token: str


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("served")
    small_map(folder, "house")
    (folder / "token").write_text(f"{TOKEN}\n")
    return Files(folder, *certificate(folder), str(folder / "token"))


@pytest.fixture(scope="module")
def url(files: Files) -> Iterator[str]:
    address = Address(port=0, tls_cert=files.cert, tls_key=files.key)
    with server(files.folder / "house", None, (TOKEN,), address) as (where, _):
        yield where


@pytest.fixture
def harness(files: Files) -> Iterator[Callable[..., Harness]]:
    made: list[Harness] = []

    def make(**parameters: Any) -> Harness:
        weights = str(tiny_weights(files.folder))
        defaults = {"weights": weights, "device": "cpu", "server_ca_file": files.cert, "server_token_file": files.token}
        # A busy machine is late for other causes.
        made.append(Harness(PlaceRecognizerNode, {**defaults, "server_timeout_s": 30.0, **parameters}))
        return made[-1]

    yield make
    for item in made:
        item.close()


def values_of(diagnostics: list[Any]) -> dict[str, str]:
    return {pair.key: pair.value for pair in diagnostics[-1].status[0].values} if diagnostics else {}


@pytest.mark.parametrize("query", ["features", "jpeg"])
def test_a_served_map_answers_as_a_map_of_this_machine(
    harness: Callable[..., Harness], files: Files, url: str, query: str
):
    h = harness(map_path=url, server_query=query, num_candidates=3)
    matches, poses = h.listen(PlaceMatch, f"{NAME}/match"), h.listen(PoseWithCovarianceStamped, f"{NAME}/pose")
    fixes, diagnostics = h.listen(NavSatFix, f"{NAME}/fix"), h.listen(DiagnosticArray, "/diagnostics")
    h.start()
    h.publish_until(image_message(picture(5)), lambda: matches and poses and fixes, "an answer of the server")
    match = matches[-1]
    assert (match.status, match.map_name, match.header.frame_id) == (PlaceMatch.MATCH, "house", "map")
    assert (match.candidates[0].place_id, match.candidates[0].source, len(match.candidates)) == (5, "5.jpg", 3)
    assert match.is_calibrated and match.confidence >= 0.924
    assert match.extract_ms > 0.0 and match.total_ms >= match.extract_ms
    assert poses[-1].pose.pose.position.x == 100.0
    assert fixes[-1].latitude == pytest.approx(DATUM.to_geo((100.0, 0.0, 0.0)).latitude_deg)
    weights = str(tiny_weights(files.folder))
    with open_map(files.folder / "house", weights=weights, device="cpu", engine="torch") as house:
        expected = house.recognize(picture(5))
    if query == "features":
        assert match.reason == expected.reason
        assert match.confidence == pytest.approx(expected.confidence, abs=1e-6)
    assert [item.place_id for item in match.candidates] == [item.place.place_id for item in expected.candidates[:3]]
    h.wait(lambda: float(values_of(diagnostics).get("server_last_ms", 0.0)) > 0.0, "diagnostics")
    values = values_of(diagnostics)
    assert (values["map"], values["places"], values["server_failures"]) == (url, "8", "0")
    assert values["server"] == "answers"


def test_a_server_that_goes_is_told_of_and_no_image_is_answered_until_it_is_back(
    harness: Callable[..., Harness], files: Files
):
    service = LocalService(served(files.folder / "house"))
    app = create_app(service, Limits(rate_hz=0.0), Tokens([TOKEN]))
    address = Address(port=0, tls_cert=files.cert, tls_key=files.key)
    with ExitStack() as first:
        where = first.enter_context(in_thread(app, address))
        h = harness(map_path=where)
        matches, diagnostics = h.listen(PlaceMatch, f"{NAME}/match"), h.listen(DiagnosticArray, "/diagnostics")
        h.start()
        h.publish_until(image_message(picture(5)), lambda: matches, "an answer of the server")
    h.publish_until(image_message(picture(6)), lambda: values_of(diagnostics).get("server") == "gone", "gone")
    matches.clear()
    request = Localize.Request(image=image_message(picture(6)))
    refused = h.call(Localize, f"{NAME}/localize", request)
    assert not refused.success
    assert f"server {where} cannot be reached: Connection refused" in refused.message
    status = diagnostics[-1].status[0]
    assert status.level == DiagnosticStatus.ERROR
    assert f"server {where}" in status.message
    assert matches == []
    port = int(where.rpartition(":")[2])
    with in_thread(app, Address(port=port, tls_cert=files.cert, tls_key=files.key)):
        h.publish_until(image_message(picture(6), 70), lambda: matches, "an answer of the server that is back")
        assert matches[-1].candidates[0].place_id == 6
    service.close()


def test_a_late_answer_is_none(harness: Callable[..., Harness], files: Files, url: str):
    h = harness(map_path=url)
    matches, diagnostics = h.listen(PlaceMatch, f"{NAME}/match"), h.listen(DiagnosticArray, "/diagnostics")
    h.start()
    h.publish_until(image_message(picture(5)), lambda: matches, "an answer of the server")
    asked = h.node.configured.engine._server
    # What takes the connection and says nothing is late, not gone.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        asked._connection.hang_up()
        asked._connection._port, asked._timeout_s = silent.getsockname()[1], 0.3
        h.publish_until(image_message(picture(6)), lambda: values_of(diagnostics).get("server") == "late", "late")
        matches.clear()
        refused = h.call(Localize, f"{NAME}/localize", Localize.Request(image=image_message(picture(6))))
    assert not refused.success
    assert "has not answered within 0.3 s" in refused.message
    assert matches == []
    assert int(values_of(diagnostics)["server_late"]) >= 1


def test_a_newer_revision_is_followed(harness: Callable[..., Harness], tmp_path: Path):
    path = small_map(tmp_path, "house", count=4)
    with server(path) as (where, service):
        h = harness(map_path=where, weights=str(tmp_path / "vit_tiny_test_patch14.safetensors"))
        matches, diagnostics = h.listen(PlaceMatch, f"{NAME}/match"), h.listen(DiagnosticArray, "/diagnostics")
        h.start()
        h.publish_until(image_message(picture(2)), lambda: matches, "an answer")
        before = h.node.configured.engine.map_in_use
        with PlaceMap.open(path, writable=True) as place_map:
            extend(place_map, tmp_path, range(4, 8))
        h.wait(lambda: service.revisions.current.info.places == 8, "the newer revision")
        h.publish_until(
            image_message(picture(6), 60),
            lambda: matches[-1].candidates and matches[-1].candidates[0].place_id == 6,
            "a place of the newer revision",
        )
        h.wait(lambda: values_of(diagnostics).get("places") == "8", "diagnostics")
        # It is the same map: what was fused of its answers goes on.
        assert h.node.configured.engine.map_in_use is before


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"map_path": "http://127.0.0.1:9"}, "server http://127.0.0.1:9 cannot be reached: Connection refused"),
        ({"map_path": "https://me:secret@127.0.0.1"}, "must not hold a password"),
        ({"map_path": "https://"}, "is not of the form https://HOST:PORT"),
        (
            {"map_path": "http://127.0.0.1:9", "sequence_length": 5, "server_query": "jpeg"},
            "sequence_length 5 needs the map's model",
        ),
        ({"map_path": "http://127.0.0.1:9", "server_token_file": "/none"}, "server_token_file /none cannot be read"),
        ({"map_path": "http://127.0.0.1:9", "map_root": "/srv"}, "is outside map_root '/srv'"),
    ],
)
def test_what_cannot_be_asked_leaves_the_node_alive(
    harness: Callable[..., Harness], parameters: dict[str, Any], said: str
):
    h = harness(**parameters)
    diagnostics = h.listen(DiagnosticArray, "/diagnostics")
    assert not h.change(Transition.TRANSITION_CONFIGURE)
    assert h.state() == State.PRIMARY_STATE_UNCONFIGURED
    h.wait(lambda: any(said in item.status[0].message for item in diagnostics), said)


def test_the_server_says_what_the_node_cannot_change(harness: Callable[..., Harness], files: Files, url: str):
    h = harness(map_path=url, server_query="jpeg")
    h.start()
    request = SetParameters.Request(parameters=[Parameter("sequence_length", value=5).to_parameter_msg()])
    refused = h.call(SetParameters, f"{NAME}/set_parameters", request).results[0]
    assert not refused.successful
    assert "needs the map's model, which tells whether the robot stands" in refused.reason
    loaded = h.call(LoadMap, f"{NAME}/load_map", LoadMap.Request(path=str(files.folder / "house")))
    assert not loaded.success
    assert f"maps come from {url}" in loaded.message


def test_images_of_a_drive_support_each_other(harness: Callable[..., Harness], files: Files, url: str):
    h = harness(map_path=url, num_candidates=3, sequence_length=10)
    matches = h.listen(PlaceMatch, f"{NAME}/match")
    h.start()
    for number in range(4):
        image, sec = image_message(picture(number), sec=50 + number), 50 + number
        h.publish_until(
            image, lambda sec=sec: matches and matches[-1].header.stamp.sec == sec, "an answer of the server"
        )
    last = matches[-1]
    assert (last.status, last.candidates[0].place_id, len(last.candidates)) == (PlaceMatch.MATCH, 3, 3)
    assert "of the belief at place 3 after " in last.reason


def test_map_root_may_be_an_address():
    assert map_server("https://maps.example/a", "https://maps.example/") == "https://maps.example/a"
    assert map_server("https://maps.example", "https://maps.example") == "https://maps.example"
    assert map_server("https://anywhere.example") == "https://anywhere.example"
    for outside in ("https://maps.example.org/a", "https://other.example", "http://maps.example"):
        with pytest.raises(MapError, match="is outside map_root"):
            map_server(outside, "https://maps.example")
    with pytest.raises(MapError, match="is outside map_root"):
        map_folder("/srv/maps/house", "https://maps.example")
    with pytest.raises(MapError, match="is a server"):
        map_folder("https://maps.example", "")


def test_a_robot_goes_on_alone_with_the_shards_near_its_last_place(
    harness: Callable[..., Harness], files: Files, tmp_path: Path
):
    shard_map(files.folder / "house", tmp_path / "cut", num_shards=4)
    (tmp_path / "vit_tiny_test_patch14.safetensors").write_bytes(tiny_weights(files.folder).read_bytes())
    service = LocalService(served(tmp_path / "cut"))
    app = create_app(service, Limits(rate_hz=0.0), Tokens([TOKEN]))
    address = Address(port=0, tls_cert=files.cert, tls_key=files.key)
    # Of shards 40 m long those of places 4 and 5, at 80 and 100 m, and 6 and 7, at 120 and 140 m.
    cache = {"server_cache": str(tmp_path / "cache"), "server_cache_radius_m": 25.0}
    with ExitStack() as first:
        where = first.enter_context(in_thread(app, address))
        h = harness(map_path=where, **cache)
        matches, diagnostics = h.listen(PlaceMatch, f"{NAME}/match"), h.listen(DiagnosticArray, "/diagnostics")
        h.start()
        h.publish_until(image_message(picture(5)), lambda: matches, "an answer of the server")
        h.wait(lambda: values_of(diagnostics).get("server_cache", "").startswith(str(tmp_path)), "shards that are kept")
        expected = matches[-1]
    kept = Path(values_of(diagnostics)["server_cache"])
    with open_map_folder(kept) as place_map:
        assert [place.place_id for place in place_map.places()] == [4, 5, 6, 7]
    matches.clear()
    h.publish_until(image_message(picture(5), 60), lambda: matches, "an answer without the server")
    answer = matches[-1]
    assert (answer.status, answer.map_name, answer.candidates[0].place_id) == (PlaceMatch.MATCH, "house", 5)
    assert answer.candidates[0].similarity == pytest.approx(expected.candidates[0].similarity, abs=1e-3)
    assert {item.place_id for item in answer.candidates} == {4, 5, 6, 7}
    assert not answer.is_calibrated and answer.has_pose
    h.wait(lambda: "answered alone, by 4 places" in diagnostics[-1].status[0].message, "diagnostics")
    assert diagnostics[-1].status[0].level == DiagnosticStatus.WARN
    # Another start without the server goes on with what is there.
    assert h.change(Transition.TRANSITION_DEACTIVATE)
    assert h.change(Transition.TRANSITION_CLEANUP)
    matches.clear()
    h.start()
    h.publish_until(image_message(picture(6), 70), lambda: matches, "an answer after a start without the server")
    assert matches[-1].candidates[0].place_id == 6
    service.close()
