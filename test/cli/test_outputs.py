"""JSON schemas of what commands print. Tests of the commands hold what they print against them (`described`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jsonschema
import pytest
from described import described

from effovpr_ros.cli.json_schema import json_schema, meanings
from effovpr_ros.cli.main import main
from effovpr_ros.cli.outputs import OUTPUTS, output_schema
from effovpr_ros.cli.render import RenderedPlaces
from effovpr_ros.cli.train import TrainedTail
from effovpr_ros.cluster.building import BuiltShards
from effovpr_ros.lab.training.state import EpochResult
from effovpr_ros.lab.training.validation import HeadRecall


@dataclass(frozen=True)
class Inner:
    """A part.

    Attributes:
        size_wh: pixels.
    """

    size_wh: tuple[int, int]


@dataclass(frozen=True)
class Outer(Inner):
    """A whole, which
    has a part.

    Attributes:
        parts: by name; the
            longest first.
        score: in [0, 1]; null where unknown.
        names: any number.

    Raises:
        ValueError: never.
    """

    parts: Mapping[str, Inner]
    score: float | None = None
    names: Sequence[str] = ()


def test_a_schema_worked_by_hand():
    pair = {
        "type": "array",
        "prefixItems": [{"type": "integer"}, {"type": "integer"}],
        "minItems": 2,
        "maxItems": 2,
        "description": "pixels.",
    }
    assert json_schema(Outer, "outer", closed=True) == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "outer",
        "$ref": "#/$defs/Outer",
        "$defs": {
            "Inner": {
                "type": "object",
                "description": "A part.",
                "properties": {"size_wh": pair},
                "required": ["size_wh"],
                "additionalProperties": False,
            },
            "Outer": {
                "type": "object",
                "description": "A whole, which has a part.",
                "properties": {
                    "size_wh": pair,
                    "parts": {
                        "type": "object",
                        "additionalProperties": {"$ref": "#/$defs/Inner"},
                        "description": "by name; the longest first.",
                    },
                    "score": {
                        "anyOf": [{"type": "number"}, {"type": "null"}],
                        "description": "in [0, 1]; null where unknown.",
                    },
                    "names": {"type": "array", "items": {"type": "string"}, "description": "any number."},
                },
                "required": ["size_wh", "parts", "score", "names"],
                "additionalProperties": False,
            },
        },
    }
    with pytest.raises(TypeError, match=r"bytes.* has no JSON schema"):
        json_schema(bytes, "bytes")


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"size_wh": [1, 2], "parts": {}, "score": None, "names": []}, ""),
        ({"size_wh": [1, 2], "parts": {"a": {"size_wh": [3, 4]}}, "score": 0.5, "names": ["b"]}, ""),
        ({"size_wh": [1], "parts": {}, "score": None, "names": []}, "too short"),
        ({"size_wh": [1, 2], "parts": {}, "score": None}, "'names' is a required property"),
        ({"size_wh": [1, 2], "parts": {"a": {}}, "score": None, "names": []}, "'size_wh' is a required property"),
        ({"size_wh": [1, 2], "parts": {}, "score": "high", "names": []}, "not valid under any"),
        ({"size_wh": [1, 2], "parts": {}, "score": None, "names": [], "more": 1}, "'more' was unexpected"),
    ],
)
def test_a_schema_refuses_other_forms(values: dict[str, Any], fault: str):
    validator = jsonschema.Draft202012Validator(json_schema(Outer, "outer", closed=True))
    faults = [error.message for error in validator.iter_errors(values)]
    assert len(faults) == bool(fault) and all(fault in message for message in faults)


def test_everything_that_is_printed_says_what_it_means():
    for command in OUTPUTS:
        schema = output_schema(command)
        jsonschema.Draft202012Validator.check_schema(schema)
        for name, definition in schema["$defs"].items():
            assert definition["description"], f"{name} of {command} has no docstring"
            silent = [field for field, value in definition["properties"].items() if not value["description"]]
            assert not silent, f"{name} of {command} does not say what {silent} are"


def test_the_command_prints_the_schema(capsys: pytest.CaptureFixture[str]):
    assert main(["schema", "map-info"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == output_schema("map-info")
    assert printed["title"] == "effovpr map info --json"


def test_what_only_long_runs_print_has_the_form_that_is_described():
    epochs = (EpochResult(0, ()), EpochResult(1, (HeadRecall(128, 90.5, 99.0),)))
    described("train", json.dumps(asdict(TrainedTail("out/tail.safetensors", 1, epochs))))
    described("render", json.dumps(asdict(RenderedPlaces("out/frames.csv", 10, 5, 1))))
    built = BuiltShards(9, 2, 10, 0, (("a.jpg", "is empty"),), 1.5, 2.5, 2.0, ("torch",), 1, (), 0, ("said",), 9, 0)
    described("map-build", json.dumps(asdict(built)))


def test_fields_of_a_base_are_explained_too():
    summary, texts = meanings(BuiltShards)
    assert summary == "What `effovpr map build --cluster` did."
    assert texts["unreadable"] == "(image, why) of every image that could not be read."
    assert texts["skipped_spacing"] == "frames too close to the last place."
