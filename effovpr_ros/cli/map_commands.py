"""`effovpr map build|info|check|export|merge|shard|compact`."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from effovpr_ros.cli.camera_options import add_camera_options
from effovpr_ros.cli.cluster_options import add_cluster_options
from effovpr_ros.cli.map_compact import add_compact
from effovpr_ros.cli.map_source import add_source_options
from effovpr_ros.cli.options import (
    Subparsers,
    add_device_options,
    add_model_options,
    add_preset_option,
    command,
)
from effovpr_ros.cli.parsing import later
from effovpr_ros.loop_closure.loop_config import POINTS
from effovpr_ros.mapping.build_config import BuildConfig
from effovpr_ros.mapping.shards import By

_BUILD = BuildConfig()


def add_parser(commands: Subparsers, summary: str) -> None:
    """Add the command."""
    parser = commands.add_parser("map", help=summary)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    building = command(
        actions,
        "build",
        "build a map from a bag or a folder of images, or append to one",
        "effovpr map build office drive.mcap --image-topic /camera/image_raw --pose-topic /odom --spacing-m 0.5",
    )
    building.add_argument("map", help="map folder; made if missing, otherwise added to")
    building.add_argument(
        "source",
        nargs="+",
        help="rosbag2 folder, .mcap file, or folder of images; each of several joins the map as a session",
    )
    building.add_argument("--name", default="", help="name of a new map; without it, the folder's")
    building.add_argument("--session", default="", help="name of this drive in the map; without it, that of the source")
    building.add_argument(
        "--session-frame", default="", help="frame of this drive's poses if it is not the map's; needs --session"
    )
    building.add_argument(
        "--frame-id",
        default="",
        help="name of a new map's frame; without it, the name of the frame of the bag's poses, or map",
    )
    building.add_argument(
        "--spacing-m", type=float, default=_BUILD.spacing_m, help="metres between places; 0: every frame"
    )
    building.add_argument(
        "--spacing-deg", type=float, default=_BUILD.spacing_deg, help="a turn by so many degrees makes a place too"
    )
    building.add_argument("--batch-size", type=int, default=_BUILD.batch_size, help="images in one forward pass")
    building.add_argument(
        "--datum",
        nargs=3,
        type=float,
        metavar=("LAT", "LON", "ALT"),
        help="origin of the map's ENU frame; without it, the first fix",
    )
    building.add_argument(
        "--pca",
        type=int,
        default=0,
        help="search by so many principal components of the global descriptors, such as 256 or 128; 0: by all numbers",
    )
    add_source_options(building)
    add_camera_options(building)
    add_cluster_options(building)
    building.add_argument(
        "--points",
        choices=POINTS,
        default=POINTS[0],
        help="points that verify answers: stored with each place, or none; they are then found in "
        "stored pictures when needed",
    )
    building.add_argument("--json", action="store_true", help="print the report as one JSON object")
    add_preset_option(building)
    add_model_options(building)
    add_device_options(building)
    building.set_defaults(run=later("map_building", "build"))

    info = command(actions, "info", "print what is in a map", "effovpr map info office")
    info.add_argument("map", type=Path, help="map folder")
    info.add_argument("--json", action="store_true", help="print one JSON object")
    info.set_defaults(run=later("map_info", "print_info"))

    checking = command(actions, "check", "compare every part of a map with its checksum", "effovpr map check office")
    checking.add_argument("map", type=Path, help="map folder")
    checking.add_argument("--json", action="store_true", help="print one JSON object")
    checking.set_defaults(run=later("map_info", "check"))

    export = command(
        actions, "export", "write places, pictures and descriptors for other tools", "effovpr map export office out/"
    )
    export.add_argument("map", type=Path, help="map folder")
    export.add_argument("folder", type=Path, help="folder to write to")
    export.set_defaults(run=later("map_making", "export"))

    merge = command(
        actions,
        "merge",
        "join maps of one model, or the shards of a map, in a new map",
        "effovpr map merge site monday tuesday --rename-sessions",
    )
    merge.add_argument("out", type=Path, help="new map folder")
    merge.add_argument(
        "maps",
        type=Path,
        nargs="+",
        metavar="MAP",
        help="maps to join, or one that lies in shards; frame and datum are the first's",
    )
    merge.add_argument("--name", default="", help="name of the new map; without it, the folder's")
    merge.add_argument(
        "--rename-sessions",
        action="store_true",
        help="where two maps have a session of one name, put the name of the map before it",
    )
    merge.add_argument(
        "--keep-frames",
        action="store_true",
        help="poses of all maps but the first stay in frames of their own, never compared with others",
    )
    merge.set_defaults(run=later("map_making", "merge"))

    shard = command(
        actions,
        "shard",
        "cut a map into shards, which together answer as the map does",
        "effovpr map shard city city_in_shards --shards 8",
    )
    shard.add_argument("map", type=Path, help="map folder")
    shard.add_argument("out", type=Path, help="new map folder")
    shard.add_argument("--shards", type=int, required=True, help="number of shards")
    shard.add_argument(
        "--by",
        choices=get_args(By),
        default="place",
        help="what a shard holds together: places near each other, or sessions",
    )
    shard.set_defaults(run=later("map_making", "shard"))
    add_compact(actions)
