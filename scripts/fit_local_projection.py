#!/usr/bin/env python3
"""Fits a projection of local descriptors (see effovpr_ros/features/local_projection.py) to a folder of images.

scripts/fit_local_projection.py IMAGES --every 12 --dimension 88 --out effovpr_ros/features/projections/NAME.npz
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from effovpr_ros.cli.options import add_device_options, add_model_options, add_preset_option, extractor_config
from effovpr_ros.core.images import decode_image
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.local_projection import fit_local_projection


def main() -> None:
    """Extract, fit, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder of .jpg and .png files, searched in depth")
    parser.add_argument("--every", type=int, default=1, help="take every so manieth image, sorted by path")
    parser.add_argument("--dimension", type=int, default=88, help="length of the projected descriptors")
    parser.add_argument("--out", type=Path, required=True, help="file to write; its name is the projection's")
    add_preset_option(parser)
    add_model_options(parser)
    add_device_options(parser)
    options = parser.parse_args()
    options.local_codes = "full"
    extractor = FeatureExtractor(replace(extractor_config(options), engine="torch"))
    paths = sorted(path for path in options.images.rglob("*") if path.suffix.lower() in (".jpg", ".png"))
    descriptors = []
    for path in paths[:: options.every]:
        features = extractor.extract([decode_image(path.read_bytes(), str(path))])[0]
        descriptors.append(features.local.descriptors)
    projection = fit_local_projection(
        options.out.stem, extractor.facet_source, np.concatenate(descriptors), options.dimension
    )
    options.out.write_bytes(projection.to_bytes())
    kept = float(np.mean([np.sum(np.square(projection.project(item))) / len(item) for item in descriptors]))
    print(f"{options.out}: {len(descriptors)} images, {kept:.1%} of the energy kept")


if __name__ == "__main__":
    main()
