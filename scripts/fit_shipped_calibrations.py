"""Fit the confidence that comes with the package, for the default model and settings.

Usage: python -P scripts/fit_shipped_calibrations.py DATA_FOLDER

corridor_walk and lund_walk are asked, each query twice: with its place in the map, and once more with the place and its
neighbours hidden. rtabmap_loop confirms: its calibration error is what `confidence_models.json` states. Calibrations of
other models in the file stay.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from functools import partial
from pathlib import Path

from effovpr_ros.features.extractor import ExtractorConfig, FeatureExtractor
from effovpr_ros.lab.evaluation.confidence_fitting import Trial, ask, fit_confidence_model
from effovpr_ros.lab.evaluation.ground_truth import Dataset, from_folders, from_loops
from effovpr_ros.lab.evaluation.method import Query
from effovpr_ros.lab.evaluation.metrics import reliability
from effovpr_ros.lab.evaluation.runner import database_map, extract_queries
from effovpr_ros.mapping.place import Place
from effovpr_ros.recognition.confidence import SHIPPED_PATH, ConfidenceModel, setting_name, shipped
from effovpr_ros.recognition.recognizer import PlaceRecognizer
from effovpr_ros.recognition.recognizer_config import RecognizerConfig

PRECISION = 0.99
TOP_KS = (100, 50)
FOLDS = 5
HIDDEN_NEIGHBOURS = 3
FITTED_ON = (
    "corridor_walk and lund_walk, each query twice: with its place in the map and without; calibration error of the "
    "queries of rtabmap_loop"
)


def main(data: Path, scratch: Path) -> None:
    """Fit every setting and write the file of the package; links are made in a scratch folder."""
    extractor = FeatureExtractor(ExtractorConfig(device="cpu"))
    asked = [Asked(dataset, extractor) for dataset in fitting_sets(data, scratch)]
    confirming = Asked(from_loops(data / "rtabmap_loop/images", data / "rtabmap_loop/loops.csv"), extractor)
    fitted = []
    for top_k in TOP_KS:
        for rerank in (True, False):
            config = RecognizerConfig(top_k=top_k, rerank=rerank)
            trials = [trial for number, item in enumerate(asked) for trial in item.trials(config, number, twice=True)]
            setting = setting_name(extractor.fingerprint, config)
            calibration = fit_confidence_model(trials, setting, FITTED_ON, PRECISION)
            fitted.append(report(calibration, trials, confirming.trials(config, 0, twice=False)))
    names = {item.setting for item in fitted}
    kept = [item for item in shipped() if item.setting not in names]
    # The first of a stage speaks for settings that nothing was fitted for.
    written = json.dumps([item.to_dict() for item in (*fitted, *kept)], indent=2)
    SHIPPED_PATH.write_text(written + "\n", encoding="utf-8")


def fitting_sets(data: Path, scratch: Path) -> Iterator[Dataset]:
    """The two sets that the confidence is fitted on; every second photograph of lund_walk is a query."""
    corridor = data / "corridor_walk"
    yield from_folders(corridor / "database", corridor / "queries", positives=corridor / "positives.csv")
    for number, image in enumerate(sorted((data / "lund_walk" / "images").iterdir())):
        part = scratch / ("database" if number % 2 == 0 else "queries")
        part.mkdir(exist_ok=True)
        (part / image.name).symlink_to(image.resolve())
    yield from_folders(scratch / "database", scratch / "queries", radius_m=12.0)


class Asked:
    """A data set whose features are known."""

    def __init__(self, dataset: Dataset, extractor: FeatureExtractor) -> None:
        """Extract once."""
        self._dataset, self._extractor = dataset, extractor
        self._queries = extract_queries(dataset, extractor, lambda done: None)
        self._known = [extractor.extract([frame.load()])[0] for frame in dataset.database]

    def trials(self, config: RecognizerConfig, number: int, *, twice: bool) -> list[Trial]:
        """Ask every query; groups of neighbouring queries count on from `number` * FOLDS."""
        found = []
        queries, positives = self._queries, self._dataset.positives
        with database_map(self._dataset, queries, self._extractor, lambda done: None, known=self._known) as place_map:
            recognizer = PlaceRecognizer(self._extractor, place_map, config)
            for index, (query, right) in enumerate(zip(queries, positives, strict=True)):
                group = number * FOLDS + index * FOLDS // len(queries)
                near = {place + step for place in right for step in range(-HIDDEN_NEIGHBOURS, HIDDEN_NEIGHBOURS + 1)}
                for hidden in (frozenset(), near) if twice else (frozenset(),):
                    admits = partial(may_answer, query, hidden)
                    found += ask(recognizer, query.features, admits, partial(is_one_of, right), group)
        return found


def may_answer(query: Query, hidden: Set[int], place: Place) -> bool:
    """Whether a place may be the answer to a query from which some are hidden."""
    return query.admits(place) and place.place_id not in hidden


def is_one_of(right: Set[int], place: Place) -> bool:
    """Whether a place is a right answer."""
    return place.place_id in right


def report(calibration: ConfidenceModel, trials: Sequence[Trial], confirming: Sequence[Trial]) -> ConfidenceModel:
    """Print what the fit does on both kinds of sets; the error of the confirming set goes into the file."""
    error = 0.0
    print(calibration.setting)
    for name, found in (("fit", trials), ("confirm", confirming)):
        confidences = [calibration.probability(trial.evidence) for trial in found]
        right = [trial.right for trial in found]
        error = reliability(confidences, right).expected_calibration_error
        accepted = [ok for value, ok in zip(confidences, right, strict=True) if value >= calibration.match_confidence]
        print(
            f"  {name}: {sum(right)} of {len(right)} right, calibration error {error:.3f}, from "
            f"{calibration.match_confidence:.3f} on {len(accepted)} accepted, {accepted.count(False)} of them wrong"
        )
    weights = tuple(round(weight, 3) for weight in calibration.weights)
    return replace(
        calibration,
        weights=weights,
        bias=round(calibration.bias, 3),
        match_confidence=round(calibration.match_confidence, 3),
        calibration_error=round(error, 3),
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        main(Path(sys.argv[1]), Path(folder))
