"""`effovpr train`: fine-tune the last blocks of the model on places of your own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tqdm import tqdm

from effovpr_ros.cli.options import Subparsers, command, print_json
from effovpr_ros.core.errors import ConfigError
from effovpr_ros.features.extractor_config import ExtractorConfig
from effovpr_ros.lab.training.augmentation import AugmentationConfig
from effovpr_ros.lab.training.distributed import joined_processes
from effovpr_ros.lab.training.frames import SourceSpec, TrainingSource, open_source, parse_source
from effovpr_ros.lab.training.place_classes import PlacesConfig, TrainingFrame, hold_out
from effovpr_ros.lab.training.progress import Progress
from effovpr_ros.lab.training.run import TrainRequest, TrainResult, train
from effovpr_ros.lab.training.state import EpochResult
from effovpr_ros.lab.training.training_config import TrainConfig

_MODEL = ExtractorConfig()
_OPTION_NAMES = {"image_size": "size", "pooling": "global", "local_block": "block"}
"""Fields whose options have the names that they have in other commands."""
_MOST_REFUSALS = 10


@dataclass(frozen=True)
class TrainedTail:
    """What came of a run.

    Attributes:
        tail: path of its file.
        best_epoch: whose weights the file holds.
        epochs: results, the state before training first.
    """

    tail: str
    best_epoch: int
    epochs: Sequence[EpochResult]


def add_parser(commands: Subparsers, summary: str) -> None:
    """Add the command."""
    parser = command(
        commands,
        "train",
        summary,
        "effovpr train first_drive.mcap photos/ --hold-out-share 0.1 --out tail_office, "
        "then effovpr map build office drive.mcap --weights tail_office/tail.safetensors",
    )
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="map, bag, folder of images, GSV-Cities folder or table (image,clip,frame[,area][,x,y,yaw]); or "
        f"SOURCE:key=value,... with {', '.join(entry.name for entry in fields(SourceSpec)[1:])}",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the result; repeat the command to resume")
    parser.add_argument(
        "--hold-out",
        action="append",
        default=[],
        metavar="COLUMN=VALUE,...",
        help="validate on the images with these values, such as floor=7,11; COLUMN is one of a "
        "table, or clip, session, city, source",
    )
    parser.add_argument(
        "--hold-out-share", type=float, default=0.0, help="validate on this share of the clips or cells"
    )
    parser.add_argument("--validation", nargs="+", default=[], metavar="SOURCE", help="validate on these sources")
    parser.add_argument("--model", default=_MODEL.model, help="offline, small, base, large, giant or a timm ViT name")
    parser.add_argument("--weights", default=_MODEL.weights, help="base weights; without it, the model's own source")
    parser.add_argument("--facet", default=_MODEL.facet, help="query, key or value, for the regional descriptor")
    parser.add_argument(
        "--centered",
        action=argparse.BooleanOptionalAction,
        default=_MODEL.centered,
        help="subtract the image's mean from the facet",
    )
    parser.add_argument("--device", default=_MODEL.device, help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--workers", type=int, default=TrainRequest.workers, help="threads that read images")
    parser.add_argument(
        "--cache",
        type=Path,
        help="folder of the augmented views that are kept, which runs may share; without it, OUT/cache",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    for config in (TrainConfig, PlacesConfig, AugmentationConfig):
        _add_fields(parser, config)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    request = _request(options)
    with joined_processes(options.device) as processes:
        is_first = processes.is_first
        with tqdm(unit="step", desc="train", disable=None if is_first else True) as bar:
            result = train(
                request, processes, lambda done: _show(bar, done), lambda line: _note(line) if is_first else None
            )
    if is_first:
        _print(result, as_json=options.json)
    return 0


def _request(options: argparse.Namespace) -> TrainRequest:
    config, places, augmentation = (
        _read_fields(options, kind) for kind in (TrainConfig, PlacesConfig, AugmentationConfig)
    )
    if not 0.0 <= options.hold_out_share < 1.0:
        raise ConfigError(f"--hold-out-share {options.hold_out_share} is outside [0, 1)")
    training = _frames(options.sources)
    columns = dict(_parse_hold_out(text) for text in options.hold_out)
    training, validation = hold_out(training, columns, options.hold_out_share, config.seed, places.cell_m)
    validation += _frames(options.validation)
    return TrainRequest(
        training=training,
        validation=validation,
        model=options.model,
        weights=options.weights,
        facet=options.facet,
        centered=options.centered,
        places=places,
        augmentation=augmentation,
        train=config,
        out=options.out,
        cache=options.cache,
        workers=options.workers,
        command=options.command_line,
    )


def _frames(texts: Sequence[str]) -> tuple[TrainingFrame, ...]:
    """Images of sources; what is refused is said."""
    found: list[TrainingSource] = [open_source(parse_source(text)) for text in texts]
    refused = [line for source in found for line in source.refused]
    for line in refused[:_MOST_REFUSALS]:
        _note(f"refused: {line}")
    if len(refused) > _MOST_REFUSALS:
        _note(f"refused: {len(refused) - _MOST_REFUSALS} more")
    return tuple(frame for source in found for frame in source.frames)


def _parse_hold_out(text: str) -> tuple[str, tuple[str, ...]]:
    column, equals, values = text.partition("=")
    wanted = tuple(value.strip() for value in values.split(",") if value.strip())
    if not column or not equals or not wanted:
        raise ConfigError(f"--hold-out {text!r} is no COLUMN=VALUE,...")
    return column, wanted


def _add_fields(parser: argparse.ArgumentParser, config: type) -> None:
    """An option for each field of a configuration."""
    for entry in fields(config):
        name = f"--{_OPTION_NAMES.get(entry.name, entry.name).replace('_', '-')}"
        text = entry.metadata["description"]
        if isinstance(entry.default, bool):
            parser.add_argument(name, dest=entry.name, action="store_true", help=text)
        else:
            parser.add_argument(
                name,
                dest=entry.name,
                type=type(entry.default),
                default=entry.default,
                choices=entry.metadata.get("choices"),
                help=text,
            )


def _read_fields(options: argparse.Namespace, config: type) -> Any:
    return config(**{entry.name: getattr(options, entry.name) for entry in fields(config)})


def _show(bar: tqdm[Any], done: Progress) -> None:
    bar.total = done.steps
    bar.n = done.step
    recalls = {f"R@1/{recall.dim}": f"{recall.r1:.1f}" for recall in done.recalls}
    bar.set_postfix({"epoch": done.epoch, "loss": f"{done.loss:.3f}", **recalls})


def _note(line: str) -> None:
    print(f"note: {line}", file=sys.stderr)


def _print(result: TrainResult, *, as_json: bool) -> None:
    if as_json:
        print_json(TrainedTail(str(result.tail), result.best, result.epochs))
        return
    for item in result.epochs:
        figures = ", ".join(f"{recall.dim}-D R@1 {recall.r1:.1f} R@5 {recall.r5:.1f}" for recall in item.recalls)
        kept = "  <- kept" if item.epoch == result.best else ""
        print(f"epoch {item.epoch:3}: {figures or 'not validated'}{kept}")
    print(result.tail)
