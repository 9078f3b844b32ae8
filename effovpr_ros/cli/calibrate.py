"""`effovpr calibrate`: make the confidence of a map's answers a probability."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from effovpr_ros.cli.options import (
    Subparsers,
    add_device_options,
    add_recognizer_options,
    command,
    device_settings,
    print_json,
    recognizer_config,
)
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.extractor_config import config_for_fingerprint
from effovpr_ros.lab.evaluation.confidence_fitting import ConfidenceFitConfig, fit_confidence, num_queries
from effovpr_ros.mapping.quantisation_sources import map_quantisation_images
from effovpr_ros.mapping.sharded_map import open_map
from effovpr_ros.recognition.confidence import store_confidence_model
from effovpr_ros.recognition.recognizer import PlaceRecognizer

_DEFAULT = ConfidenceFitConfig()


@dataclass(frozen=True)
class PointFit:
    """The model of answers whose points were verified.

    Attributes:
        weights: by name of the figure.
        bias: log-odds without any evidence.
    """

    weights: Mapping[str, float]
    bias: float


@dataclass(frozen=True)
class ConfidenceFit:
    """The fitted model of the confidence.

    Attributes:
        setting: of model and recognition that it was fitted for.
        weights: by name of the figure, of answers whose points were not looked at.
        bias: log-odds without any evidence.
        match_confidence: least confidence at which the wanted precision was reached.
        precision: wanted.
        fitted_on: what the queries were, for people.
        num_queries: of the fit.
        calibration_error: expected calibration error on queries left out of the fit.
        points: of answers whose points were verified; null where it was fitted without.
    """

    setting: str
    weights: Mapping[str, float]
    bias: float
    match_confidence: float
    precision: float
    fitted_on: str
    num_queries: int
    calibration_error: float
    points: PointFit | None


def add_parser(commands: Subparsers, summary: str) -> None:
    """Add the command."""
    parser = command(
        commands,
        "calibrate",
        summary,
        "effovpr calibrate office --precision 0.99",
    )
    parser.add_argument("map", type=Path, help="map folder")
    parser.add_argument(
        "--precision",
        type=float,
        default=_DEFAULT.precision,
        help="share of right answers among the MATCHes that the fit aims at",
    )
    parser.add_argument(
        "--radius",
        type=float,
        default=_DEFAULT.radius_m,
        help="an answer within so many metres of the true position is right",
    )
    parser.add_argument(
        "--max-queries", type=int, default=_DEFAULT.max_queries, help="most places that the map is asked about"
    )
    parser.add_argument(
        "--strength",
        type=float,
        default=_DEFAULT.strength,
        help="strength of the imitated change of light and stance, where there is one session",
    )
    parser.add_argument("--json", action="store_true", help="print the confidence model as one JSON object")
    add_recognizer_options(parser)
    add_device_options(parser, precision_option="--number-precision")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    config = ConfidenceFitConfig(
        precision=options.precision,
        radius_m=options.radius,
        max_queries=options.max_queries,
        strength=options.strength,
    )
    with open_map(options.map, writable=True) as place_map:
        config_model = config_for_fingerprint(place_map.fingerprint, **device_settings(options))
        extractor = FeatureExtractor(config_model, map_quantisation_images(options.map))
        # Without a budget of time, which would let the fit depend on what else the machine does.
        config_recognizer = replace(recognizer_config(options, place_map), verify_budget_ms=0.0)
        recognizer = PlaceRecognizer(extractor, place_map, config_recognizer)
        extractor.seek_faster_engine(num_queries(place_map, config))
        with tqdm(total=num_queries(place_map, config), unit="place", desc="calibrate", disable=None) as bar:
            model = fit_confidence(place_map, extractor, recognizer, config, lambda done: bar.update(done))
        store_confidence_model(place_map, model)
    if options.json:
        values = model.to_dict()
        points = values.pop("points")
        print_json(ConfidenceFit(**values, points=PointFit(**points) if points else None))
        return 0
    print(f"{model.num_queries} questions: {model.fitted_on}")
    print(f"setting: {model.setting}")
    print(f"expected calibration error, on places left out of the fit: {model.calibration_error:.3f}")
    print(f"MATCH from a confidence of {model.match_confidence:.3f} on, for a precision of {model.precision}")
    if model.match_confidence >= 1.0:
        print("no confidence reaches that precision: nothing will be a MATCH; ask for less", file=sys.stderr)
    return 0
