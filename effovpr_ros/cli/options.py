"""Options that several commands share; defaults come from the configuration dataclasses."""

from __future__ import annotations

import argparse
import json
from typing import Any

from effovpr_ros.evaluation.bag_truth import PoseTruth
from effovpr_ros.features.extractor import ExtractorConfig
from effovpr_ros.matching.reranking import SCORES
from effovpr_ros.recognition.config import RecognizerConfig

_EXTRACTOR = ExtractorConfig()
_RECOGNIZER = RecognizerConfig()
_TRUTH = PoseTruth()
_MODEL_FIELDS = {
    "model": "model",
    "size": "image_size",
    "block": "local_block",
    "facet": "facet",
    "t1": "min_attention",
    "max-keypoints": "max_keypoints",
}
"""Option to field of `ExtractorConfig`."""
Subparsers = Any


def command(commands: Subparsers, name: str, summary: str, example: str) -> argparse.ArgumentParser:
    """A sub-command whose help ends with an example."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"example: {example}",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    return parser


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """Where the model runs and where its weights lie."""
    parser.add_argument("--weights", default=_EXTRACTOR.weights, help="weights file; empty for the model's own source")
    parser.add_argument("--device", default=_EXTRACTOR.device, help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--precision", default=_EXTRACTOR.precision, help="auto, fp32, fp16 or bf16")


def add_model_options(parser: argparse.ArgumentParser, *, of_a_map: bool = False) -> None:
    """What a new map's descriptors are; or, with `of_a_map`, what those of an existing map are expected to be."""
    helps = {
        "model": "offline, small, base, large, giant or a timm ViT name",
        "size": "side of the network's input in pixels",
        "block": "block of the local descriptors",
        "facet": "query, key or value",
        "t1": "least attention of a keypoint to [CLS]",
        "max-keypoints": "most keypoints an image; 0: all",
    }
    for name, text in helps.items():
        default = getattr(_EXTRACTOR, _MODEL_FIELDS[name])
        if of_a_map:
            text = f"refuse a map that was made otherwise: {text}"
        parser.add_argument(f"--{name}", type=type(default), default=None if of_a_map else default, help=text)


def given_model_options(options: argparse.Namespace) -> list[tuple[str, str, object]]:
    """Model options that were given: the option, the field of `ExtractorConfig` and the value."""
    values = {name: getattr(options, name.replace("-", "_")) for name in _MODEL_FIELDS}
    return [(f"--{name}", _MODEL_FIELDS[name], value) for name, value in values.items() if value is not None]


def add_pose_options(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """Where the truth is in a bag."""
    kinds = "Odometry, PoseStamped, PoseWithCovarianceStamped, Path or NavSatFix"
    parser.add_argument(
        "--pose", default=_TRUTH.pose_topic, required=required, metavar="TOPIC", help=f"topic of true poses: {kinds}"
    )
    parser.add_argument("--image-topic", default="", metavar="TOPIC", help="of a bag; the only image topic if empty")
    parser.add_argument(
        "--radius", type=float, default=_TRUTH.radius_m, help="metres within which poses of a bag show one place"
    )
    parser.add_argument(
        "--max-heading-deg", type=float, default=_TRUTH.max_heading_deg, help="and within so many degrees, where known"
    )
    parser.add_argument(
        "--max-gap-s", type=float, default=_TRUTH.max_gap_s, help="refuse images between poses further apart"
    )


def pose_truth(options: argparse.Namespace) -> PoseTruth:
    """The truth that the options describe."""
    return PoseTruth(options.pose, options.radius, options.max_heading_deg, options.max_gap_s)


def extractor_config(options: argparse.Namespace) -> ExtractorConfig:
    """The extractor that the options of both groups describe."""
    return ExtractorConfig(
        model=options.model,
        weights=options.weights,
        image_size=options.size,
        local_block=options.block,
        facet=options.facet,
        min_attention=options.t1,
        max_keypoints=options.max_keypoints,
        device=options.device,
        precision=options.precision,
    )


def add_recognizer_options(parser: argparse.ArgumentParser) -> None:
    """How a query is answered."""
    parser.add_argument("--top-k", type=int, default=_RECOGNIZER.top_k, help="candidates to re-rank")
    parser.add_argument("--score", choices=SCORES, default=_RECOGNIZER.score, help="re-ranking score")
    parser.add_argument("--t2", type=float, default=_RECOGNIZER.min_similarity, help="least cosine of a mutual match")
    parser.add_argument("--no-rerank", action="store_true", help="decide on global similarity alone")


def recognizer_config(options: argparse.Namespace) -> RecognizerConfig:
    """The recogniser that the options describe."""
    return RecognizerConfig(
        top_k=options.top_k, score=options.score, min_similarity=options.t2, rerank=not options.no_rerank
    )


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))
