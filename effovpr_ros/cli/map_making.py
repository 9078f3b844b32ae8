"""What `effovpr map merge`, `shard` and `export` do."""

from __future__ import annotations

import argparse

from tqdm import tqdm

from effovpr_ros.mapping.export import export_map
from effovpr_ros.mapping.manifest import read_manifest
from effovpr_ros.mapping.merge import MergeConfig, merge_maps
from effovpr_ros.mapping.sharded_map import open_map
from effovpr_ros.mapping.sharding import shard_map


def merge(options: argparse.Namespace) -> int:
    """Join maps; gives the exit code.

    Raises:
        MapError: no usable map, or a folder that cannot be written.
    """
    config = MergeConfig(options.name, options.rename_sessions, options.keep_frames)
    with tqdm(unit="place", disable=None, desc=options.out.name) as bar:
        count = merge_maps(options.out, options.maps, config, lambda done: bar.update(done))
    print(f"map {options.out}: {count} places of {len(options.maps)} maps")
    return 0


def shard(options: argparse.Namespace) -> int:
    """Cut a map into shards; gives the exit code.

    Raises:
        MapError: no usable map, or a folder that cannot be written.
    """
    with tqdm(unit="place", disable=None, desc=options.out.name) as bar:
        count = shard_map(options.map, options.out, options.shards, options.by, lambda done: bar.update(done))
    print(f"map {options.out}: {count} places in {len(read_manifest(options.out).shards)} shards")
    return 0


def export(options: argparse.Namespace) -> int:
    """Write a map for other tools; gives the exit code.

    Raises:
        MapError: no usable map, or a folder that cannot be written.
    """
    with open_map(options.map) as place_map:
        for path in export_map(place_map, options.folder):
            print(path)
    return 0
