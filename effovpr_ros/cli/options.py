"""Options that several commands share; defaults come from the configuration dataclasses."""

from __future__ import annotations

import argparse
import json
from typing import Any

from effovpr_ros.features.extractor import ExtractorConfig
from effovpr_ros.matching.reranking import SCORES
from effovpr_ros.recognition.config import RecognizerConfig

_EXTRACTOR = ExtractorConfig()
_RECOGNIZER = RecognizerConfig()
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


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """What a new map's descriptors are."""
    parser.add_argument(
        "--model", default=_EXTRACTOR.model, help="offline, small, base, large, giant or a timm ViT name"
    )
    parser.add_argument("--size", type=int, default=_EXTRACTOR.image_size, help="side of the network's input in pixels")
    parser.add_argument("--block", type=int, default=_EXTRACTOR.local_block, help="block of the local descriptors")
    parser.add_argument("--facet", default=_EXTRACTOR.facet, help="query, key or value")
    parser.add_argument(
        "--t1", type=float, default=_EXTRACTOR.min_attention, help="least attention of a keypoint to [CLS]"
    )
    parser.add_argument(
        "--max-keypoints", type=int, default=_EXTRACTOR.max_keypoints, help="most keypoints an image; 0: all"
    )


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
