"""A map to files that other tools read."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

from effovpr_ros.core.errors import MapError
from effovpr_ros.mapping.map_reading import MapReader

POSE_COLUMNS = ("x", "y", "z", "qx", "qy", "qz", "qw")
GEO_COLUMNS = ("latitude", "longitude", "altitude")


def export_map(place_map: MapReader, folder: Path) -> list[Path]:
    """Write a map's places, pictures and global descriptors.

    `places.csv` has the columns that image folders are read by (image, stamp in seconds, pose, geo-tag) and
    names the files in `thumbnails/`, so an export can be opened as a source again. `places.geojson` holds the
    geo-tagged places; `global_descriptors.npy` is (N, D) float32, one row a place, before PCA. Poses in
    another frame than the map's are left out.

    Returns:
        What was written.

    Raises:
        MapError: the folder is not empty or not writable.
    """
    try:
        (folder / "thumbnails").mkdir(parents=True, exist_ok=True)
        if (folder / "places.csv").exists():
            raise MapError(f"{folder} holds an export already; choose a new folder")
        with (folder / "places.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["image", "stamp", *POSE_COLUMNS, *GEO_COLUMNS, "session", "source", "place_id"])
            for place in place_map.places():
                image = f"thumbnails/{place.place_id:06d}.jpg"
                (folder / image).write_bytes(place_map.thumbnail(place.place_id))
                where = place.map_pose
                # The csv module writes None, which is what is not known, as an empty cell.
                pose = (*where.position_xyz, *(where.quat_xyzw or (None,) * 4)) if where else ("",) * 7
                geo = (
                    (place.geo.latitude_deg, place.geo.longitude_deg, place.geo.altitude_m) if place.geo else ("",) * 3
                )
                stamp = place.stamp_ns and f"{place.stamp_ns // 10**9}.{place.stamp_ns % 10**9:09d}"
                table.writerow([image, stamp, *pose, *geo, place.session, place.source, place.place_id])
        np.save(folder / "global_descriptors.npy", place_map.global_descriptors())
        (folder / "places.geojson").write_text(json.dumps(_geojson(place_map)), encoding="utf-8")
    except OSError as error:
        raise MapError(f"export to {folder} failed: {error}") from error
    return [folder / name for name in ("places.csv", "places.geojson", "global_descriptors.npy", "thumbnails")]


def _geojson(place_map: MapReader) -> dict[str, object]:
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [place.geo.longitude_deg, place.geo.latitude_deg]},
            "properties": {"place_id": place.place_id, "session": place.session, "source": place.source},
        }
        for place in place_map.places()
        if place.geo
    ]
    return {"type": "FeatureCollection", "features": features}
