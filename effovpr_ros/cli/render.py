"""`effovpr render`: places of simulated buildings, to train and validate on."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from pathlib import Path

from tqdm import tqdm

from effovpr_ros.cli.options import Subparsers, command, print_json
from effovpr_ros.core.errors import ConfigError
from effovpr_ros.lab.simulation.rendered_places import LEVELS, TABLE_NAME, PlacesConfig, render_places


@dataclass(frozen=True)
class RenderedPlaces:
    """What was rendered.

    Attributes:
        table: path of the table that lists the images.
        images: their number.
        places: that they show.
        levels: that these are in.
    """

    table: str
    images: int
    places: int
    levels: int


def add_parser(commands: Subparsers, summary: str) -> None:
    """Add the command."""
    parser = command(
        commands,
        "render",
        summary,
        "effovpr render rendered --places-per-level 40, then effovpr train rendered/frames.csv --out tail",
    )
    parser.add_argument("out", type=Path, help="folder to make: JPEG images and frames.csv")
    parser.add_argument("--levels", default="all", help=f"comma-separated names, or all: {', '.join(LEVELS)}")
    for entry in fields(PlacesConfig):
        option = f"--{entry.name.replace('_', '-')}"
        parser.add_argument(option, type=type(entry.default), default=entry.default, help=f"default {entry.default}")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    levels = LEVELS if options.levels == "all" else tuple(options.levels.split(","))
    unknown = [name for name in levels if name not in LEVELS]
    if unknown:
        raise ConfigError(f"level {unknown[0]!r} is unknown; use {', '.join(LEVELS)}")
    config = PlacesConfig(**{entry.name: getattr(options, entry.name) for entry in fields(PlacesConfig)})
    with tqdm(total=len(levels), unit="level", desc=options.out.name, disable=None) as bar:
        rows = render_places(options.out, levels, config, lambda done: bar.update(done))
    rendered = RenderedPlaces(
        table=str(options.out / TABLE_NAME),
        images=len(rows),
        places=len({row.place for row in rows}),
        levels=len({row.area for row in rows}),
    )
    if options.json:
        print_json(rendered)
    else:
        print(f"{rendered.table}: {rendered.images} images of {rendered.places} places in {rendered.levels} levels")
    return 0
