"""The SROS2 policy allows what the nodes have, and nothing that they have not."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")

from harness import Harness
from synthetic import new_place, picture, tiny_extractor

from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.nodes.adapters.adapter_config import MATCH_ADAPTERS
from effovpr_ros.nodes.loop_closure_detector import LoopClosureDetectorNode
from effovpr_ros.nodes.place_recognizer import PlaceRecognizerNode

POLICY = Path(__file__).parents[2] / "config" / "sros2" / "effovpr_ros.policy.xml"
# Names of the launch files' defaults for those of the nodes.
OF_LAUNCH = {
    "/image": "/camera/image_raw",
    "/camera_info": "/camera/camera_info",
    "/depth": "/camera/depth/image_raw",
}
# The other transport, a clock that is simulated, and an adapter whose messages come with another package.
NOT_ALWAYS = {"/camera/image_raw/compressed", "/clock", "/external_loop_closures"}


def allowed(name: str, kind: str, verb: str) -> set[str]:
    """Full names of what the policy allows a node."""
    (profile,) = ElementTree.parse(POLICY).findall(f".//enclave[@path='/effovpr/{name}']//profile[@node='{name}']")
    names = [
        entry.text or "" for group in profile.findall(f"{kind}s[@{verb}='ALLOW']") for entry in group.findall(kind)
    ]
    assert len(names) == len(set(names))
    return {text.replace("~", f"/{name}") if text[0] in "~/" else f"/{text}" for text in names}


@pytest.mark.parametrize(
    ("kind", "name", "parameters"),
    [
        (
            PlaceRecognizerNode,
            "place_recognizer",
            {"adapters": ",".join(MATCH_ADAPTERS), "sequence_length": 5, "publish_tf": True},
        ),
        (LoopClosureDetectorNode, "loop_closure_detector", {"adapters": "lio_sam", "use_depth": True}),
    ],
)
def test_the_policy_names_what_an_active_node_has(tmp_path: Path, kind: Any, name: str, parameters: dict[str, Any]):
    extractor = tiny_extractor(tmp_path)
    with PlaceMap.create(tmp_path / "map", fingerprint=extractor.fingerprint, frame_id="odom") as place_map:
        place_map.add([new_place(0, features=extractor.extract([picture(0)])[0])])
    where = "map_path" if kind is PlaceRecognizerNode else "session_path"
    own = {where: str(tmp_path / "map"), "weights": extractor.config.weights, "device": "cpu", **parameters}
    harness = Harness(kind, own)
    try:
        harness.start()
        node = harness.node

        def have(found: list[tuple[str, list[str]]]) -> set[str]:
            return {OF_LAUNCH.get(topic, topic) for topic, _ in found}

        heard = have(node.get_subscriber_names_and_types_by_node(name, "/"))
        sent = have(node.get_publisher_names_and_types_by_node(name, "/"))
        answered = have(node.get_service_names_and_types_by_node(name, "/"))
    finally:
        harness.close()
    # An action is made of topics and services; the policy names it once.
    actions = {item.split("/_action/")[0] for item in sent | answered if "/_action/" in item}
    assert actions == allowed(name, "action", "execute")
    sent, answered = ({item for item in names if "/_action/" not in item} for names in (sent, answered))
    assert heard <= allowed(name, "topic", "subscribe")
    assert sent <= allowed(name, "topic", "publish")
    assert answered <= allowed(name, "service", "reply")
    assert allowed(name, "topic", "subscribe") - heard <= NOT_ALWAYS | {"/parameter_events"}
    assert allowed(name, "topic", "publish") - sent <= NOT_ALWAYS
    assert allowed(name, "service", "reply") == answered
