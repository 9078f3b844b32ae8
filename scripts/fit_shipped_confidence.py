"""Fit the confidence that comes with the package, for the default model and settings, and judge it on sets left out.

Usage: python -P scripts/fit_shipped_confidence.py DATA_FOLDER SCRATCH_FOLDER [--only SET] [--write]

Asks the scenes of `lab.evaluation.confidence_sets`, leaves each set out of the fit in turn, and prints how the
confidence does on it; `--write` then fits all and writes the file of the package. Features, points and answers are kept
in the scratch folder, so that a run goes on where the last one ended.
"""

from __future__ import annotations

import argparse
import json
import pickle
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from effovpr_ros.cli.options import PRESETS
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.features.image_features import Features
from effovpr_ros.geometry.point_codec import encode_points
from effovpr_ros.geometry.points import PointExtractor, Points
from effovpr_ros.lab.evaluation.confidence_fitting import ask
from effovpr_ros.lab.evaluation.confidence_regression import (
    SHIPPED_FIGURES,
    Trial,
    fit_confidence_model,
    held_out_confidences,
)
from effovpr_ros.lab.evaluation.confidence_sets import ConfidenceScene, Question, scenes
from effovpr_ros.lab.evaluation.metrics import reliability
from effovpr_ros.mapping.builder import make_thumbnail
from effovpr_ros.mapping.place import NewPlace, Place
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.recognition.confidence import SHIPPED_PATH, setting_name, shipped
from effovpr_ros.recognition.map_null import measure_map_null
from effovpr_ros.recognition.recognizer import PlaceRecognizer
from effovpr_ros.sources.frame import Frame

PRECISION = 0.99
SHARES = {"level": 0.4, "tower_floors": 0.5}
"""Of the weight of a set: buildings are many, and most answers of tower_floors are wrong."""
SHARING = 0.5
"""Of the weight of a wrong answer that shares the scene of the right place from farther away."""
MATCH_CONFIDENCE = 0.9
TOP_KS = (100, 50)
LARGE_PX = 300
FITTED_ON = (
    "rtabmap_loop, corridor_walk, lund_walk, tower_floors and six rendered buildings, as they are and in imitated "
    "stance, season and night, each place once in the map and once hidden; calibration error of sets left out"
)


@dataclass(frozen=True)
class Judged:
    """A trial with what is told of it in the table."""

    trial: Trial
    source: str
    condition: str
    hidden: bool
    large: bool
    sharing: bool


class Asked:
    """Asks scenes; features and points are kept on disk."""

    def __init__(self, scratch: Path) -> None:
        """Open the default model."""
        config, recognizer = PRESETS["default"]
        self._extractor = FeatureExtractor(replace(config, device="cpu", engine="torch"))
        self._config = replace(recognizer, verify="on", verify_budget_ms=0.0)
        self._points = PointExtractor("cpu")
        self._folder = scratch / "default"
        self._folder.mkdir(parents=True, exist_ok=True)

    def setting(self, top_k: int) -> str:
        """Name of the setting."""
        return setting_name(self._extractor.fingerprint, replace(self._config, top_k=top_k))

    def scene(self, scene: ConfidenceScene, group: int) -> list[Judged]:
        """Every question of a scene, with its place in the map and, where it has one, without."""
        kept = self._folder / f"{scene.source}, {scene.name}.pickle"
        if kept.is_file():
            return [replace(item, trial=replace(item.trial, group=group)) for item in pickle.loads(kept.read_bytes())]
        with (
            tempfile.TemporaryDirectory() as folder,
            PlaceMap.create(Path(folder) / "map", fingerprint=self._extractor.fingerprint) as place_map,
        ):
            place_map.add([self._place(frame, scene) for frame in scene.database])
            place_map.flush()
            null = None if scene.grows else measure_map_null(self._extractor, place_map, self._config)
            recognizer = PlaceRecognizer(self._extractor, place_map, self._config, null=null)
            judged = [
                item
                for question in scene.questions
                for hidden in ((False, True) if question.hidden else (False,))
                for item in self._ask(recognizer, question, scene, hidden, group)
            ]
        kept.write_bytes(pickle.dumps(judged))
        return judged

    def _ask(
        self, recognizer: PlaceRecognizer, question: Question, scene: ConfidenceScene, hidden: bool, group: int
    ) -> list[Judged]:
        left_out = question.hidden if hidden else frozenset()
        features, points = self._known(question.frame, scene)
        unclear = sharing = False

        def admits(place: Place) -> bool:
            before = question.before is None or place.place_id < question.before
            return before and place.place_id not in left_out

        def is_right(place: Place) -> bool:
            nonlocal unclear, sharing
            unclear, sharing = (place.place_id in numbers for numbers in (question.unclear, question.sharing))
            return place.place_id in question.right

        trials = ask(recognizer, features, admits, is_right, group, lambda: points)
        absent = hidden or not question.right
        large = max(points.image_size_wh) >= LARGE_PX
        return [
            Judged(trial, scene.source, question.condition, absent, large, sharing) for trial in trials if not unclear
        ]

    def _place(self, frame: Frame, scene: ConfidenceScene) -> NewPlace:
        features, points = self._known(frame, scene)
        picture = make_thumbnail(np.zeros((32, 32, 3), np.uint8), 32)
        size_wh = points.image_size_wh
        blob = encode_points(points)
        return NewPlace("map", 0, frame.name, frame.pose, frame.geo, size_wh, picture, features, blob)

    def _known(self, frame: Frame, scene: ConfidenceScene) -> tuple[Features, Points]:
        """Features and points of a picture, from the scratch folder where they are there."""
        kept = self._folder / "pictures" / f"{scene.source} {frame.name.replace('/', ' ')}.pickle"
        if not kept.is_file():
            image = frame.load()
            kept.parent.mkdir(exist_ok=True)
            kept.write_bytes(pickle.dumps((self._extractor.extract([image])[0], self._points.extract(image))))
        known: tuple[Features, Points] = pickle.loads(kept.read_bytes())
        return known


def main() -> None:
    """Ask, judge, and write where that is wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--only", default="", help="sets whose name begins so, for a look at some")
    parser.add_argument("--write", action="store_true", help="write the file of the package")
    options = parser.parse_args()
    asked = Asked(options.scratch)
    judged: list[Judged] = []
    groups: dict[str, int] = {}
    for scene in scenes(options.data, options.scratch / "levels"):
        if scene.source.startswith(options.only):
            judged += asked.scene(scene, groups.setdefault(scene.source, len(groups)))
            print(f"asked {scene.source}, {scene.name}", flush=True)
    trials = weighed(judged)
    without_points = [replace(trial, evidence=replace(trial.evidence, points=None)) for trial in trials]
    for name, what in (("with points", trials), ("without points", without_points)):
        confidences = held_out_confidences(what, figures=SHIPPED_FIGURES)
        print(f"{name}, each set left out of the fit")
        table(judged, confidences)
    if options.write:
        model = replace(
            fit_confidence_model(trials, "", FITTED_ON, PRECISION, figures=SHIPPED_FIGURES),
            match_confidence=MATCH_CONFIDENCE,
        )
        fitted = [replace(model, setting=asked.setting(top_k)) for top_k in TOP_KS]
        names = {item.setting for item in fitted}
        kept = [item for item in shipped() if item.setting not in names]
        written = json.dumps([item.to_dict() for item in (*fitted, *kept)], indent=2)
        SHIPPED_PATH.write_text(written + "\n", encoding="utf-8")


def weighed(judged: Sequence[Judged]) -> list[Trial]:
    """Sets weigh by the root of their size, so that a large one does not decide alone, and the many levels less.

    Wrong answers that share the right place's scene weigh little: what speaks for them is seen rightly, and with their
    whole weight the model learns that clear evidence proves nothing.
    """
    counts = Counter(item.source for item in judged)
    shares = [next((share for name, share in SHARES.items() if item.source.startswith(name)), 1.0) for item in judged]
    return [
        replace(
            item.trial,
            weight=share * (SHARING if item.sharing else 1.0) * counts[item.source] ** 0.5 / counts[item.source],
        )
        for item, share in zip(judged, shares, strict=True)
    ]


def table(judged: Sequence[Judged], confidences: NDArray[np.float64]) -> None:
    """Print a row for each set and for each condition of it."""
    heads = ("set", "answers", "right", "calibration error", "MATCH of right", "NO_MATCH of right")
    print(f"| {' | '.join((*heads, 'wrong of MATCH', 'MATCH of hidden'))} |")
    print("|---|---|---|---|---|---|---|---|")
    keys = sorted({(item.source, "") for item in judged} | {(item.source, item.condition) for item in judged})
    for source, condition in keys:
        chosen = np.array([item.source == source and condition in ("", item.condition) for item in judged])
        part = [item for item, use in zip(judged, chosen, strict=True) if use]
        values = confidences[chosen]
        right = np.array([item.trial.right for item in part])
        large = right & np.array([item.large for item in part])
        hidden = np.array([item.hidden for item in part])
        accepted = values >= MATCH_CONFIDENCE
        error = reliability(values.tolist(), right.tolist()).expected_calibration_error
        of_large = (f"{accepted[large].mean():.2f}", f"{(values[large] < 0.1).mean():.2f}") if large.any() else ("", "")
        cells = (
            f"{source}, {condition}" if condition else source,
            str(len(part)),
            str(right.sum()),
            f"{error:.3f}",
            *of_large,
            f"{(accepted & ~right).sum()} of {accepted.sum()}",
            f"{(accepted & hidden).sum()} of {hidden.sum()}",
        )
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
