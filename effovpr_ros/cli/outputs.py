"""What `--json` of each command prints: the one list from which the reference and its JSON schemas are made."""

from __future__ import annotations

from typing import Any

from effovpr_ros.cli.asking import QueryAnswers
from effovpr_ros.cli.calibrate import ConfidenceFit
from effovpr_ros.cli.doctor import Diagnosis
from effovpr_ros.cli.json_schema import json_schema
from effovpr_ros.cli.map_building import BuiltCameras, BuiltMap, BuiltSources
from effovpr_ros.cli.map_info import CheckedMap, MapDescription
from effovpr_ros.cli.render import RenderedPlaces
from effovpr_ros.cli.train import TrainedTail
from effovpr_ros.cluster.building import BuiltShards
from effovpr_ros.lab.benchmarks.report import Report
from effovpr_ros.lab.evaluation.compare import Comparison
from effovpr_ros.lab.evaluation.summary_records import AblationSummary, Summary
from effovpr_ros.mapping.compact import CompactReport

OUTPUTS: dict[str, Any] = {
    "query": QueryAnswers,
    "map-info": MapDescription,
    "map-build": BuiltMap | BuiltCameras | BuiltSources | BuiltShards,
    "map-check": CheckedMap,
    "map-compact": CompactReport,
    "evaluate": Summary | AblationSummary,
    "evaluate-compare": Comparison,
    "bench": Report,
    "calibrate": ConfidenceFit,
    "doctor": Diagnosis,
    "train": TrainedTail,
    "render": RenderedPlaces,
}
"""Command, its words joined by dashes, to the dataclass that it prints, or to several that it may print."""


def output_schema(command: str, *, closed: bool = False) -> dict[str, Any]:
    """The JSON schema of what a command of `OUTPUTS` prints; see `json_schema`."""
    return json_schema(OUTPUTS[command], f"effovpr {command.replace('-', ' ')} --json", closed=closed)
