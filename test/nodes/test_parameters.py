"""Configuration dataclasses as parameters of a ROS node: what a parameter file may say, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

rclpy = pytest.importorskip("rclpy")

from rclpy.exceptions import ParameterException  # noqa: E402
from rclpy.impl.rcutils_logger import RcutilsLogger  # noqa: E402
from rclpy.node import Node  # noqa: E402

from effovpr_ros.core.errors import ConfigError  # noqa: E402
from effovpr_ros.core.settings import choice, setting  # noqa: E402
from effovpr_ros.nodes import parameters  # noqa: E402


@dataclass(frozen=True)
class Config:
    """One field of each type that a parameter of this package has."""

    verification: str = choice("off", ("off", "metric"), "A choice.")
    radius_m: float = setting(10.0, "A length.", min=0.0, max=100.0)
    top_k: int = setting(5, "A count.", min=1, max=50)
    rerank: bool = setting(True, "A switch.")
    topics: list[str] = field(default_factory=lambda: [""], metadata={"description": "A list."})


@pytest.fixture
def declared(tmp_path: Path) -> Iterator[Callable[[str], Node]]:
    """A node whose parameter file has some lines."""
    context, nodes = rclpy.Context(), []
    rclpy.init(context=context)

    def make(lines: str) -> Node:
        text = "\n".join(f"    {line}" for line in lines.splitlines())
        (tmp_path / "file.yaml").write_text(f"/**:\n  ros__parameters:\n    use_sim_time: false\n{text}\n")
        arguments = ["--ros-args", "--params-file", str(tmp_path / "file.yaml")]
        nodes.append(Node("tested", context=context, cli_args=arguments))
        parameters.declare(nodes[-1], Config())
        parameters.warn_of_unknown(nodes[-1])
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(RcutilsLogger, "warning", lambda self, text, **options: said.append(text))
    return said


def test_values_of_the_file_are_taken_without_a_word(declared: Callable[[str], Node], warnings: list[str]):
    node = declared('verification: "metric"\nradius_m: 2.5\ntop_k: 7\nrerank: off\ntopics: ["/a", "/b"]')
    assert parameters.read(node, Config) == Config("metric", 2.5, 7, False, ["/a", "/b"])
    assert parameters.read(declared('verification: "off"'), Config) == Config()
    assert warnings == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("verification: off", 'verification False is of type bool and must be of type str; .* double quotes.*"off"'),
        ("verification: 3", "verification 3 is of type int and must be of type str; .* double quotes"),
        ("radius_m: 2", "radius_m 2 is of type int and must be of type float; .* decimal point"),
        ("top_k: 2.0", "top_k 2.0 is of type float and must be of type int; .* without a decimal point"),
        ('rerank: "off"', "rerank 'off' is of type str and must be of type bool; write true or false"),
        ("topics: /a", r"topics '/a' is of type str and must be of type list; .* as \["),
    ],
)
def test_a_value_of_another_type_is_refused_with_how_to_write_it(declared: Callable[[str], Node], line: str, said: str):
    with pytest.raises(ConfigError, match=said):
        declared(line)


def test_a_value_out_of_range_is_refused(declared: Callable[[str], Node]):
    with pytest.raises(ParameterException, match="top_k out of range"):
        declared("top_k: 51")


def test_unknown_parameters_are_named_with_the_nearest_that_there_is(
    declared: Callable[[str], Node], warnings: list[str]
):
    node = declared("verfication: metric\ncolour: 3")
    assert parameters.read(node, Config) == Config()
    assert sorted(warnings) == [
        "parameter colour is ignored: this node has none of that name",
        "parameter verfication is ignored: this node has none of that name; the nearest that it has is verification",
    ]
