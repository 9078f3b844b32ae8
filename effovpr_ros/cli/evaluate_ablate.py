"""`effovpr evaluate FORM --ablate`: which setting makes how much of a difference?"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict

from tqdm import tqdm

from effovpr_ros.cli.evaluate_table import ablation_table
from effovpr_ros.cli.options import print_json
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.lab.evaluation.ablation import Ablation, Setting
from effovpr_ros.lab.evaluation.ground_truth import Dataset
from effovpr_ros.lab.evaluation.saved_run import save_json
from effovpr_ros.lab.evaluation.summary import describe
from effovpr_ros.lab.evaluation.summary_records import AblatedFigures, AblationSummary

ABLATION_NAME = "ablation.json"


def run_ablation(
    options: argparse.Namespace, dataset: Dataset, settings: Sequence[Setting], extractor: FeatureExtractor
) -> int:
    """Measure and print.

    Args:
        options: `out` and `json`.
        dataset: to measure on.
        settings: from `plan_settings`.
        extractor: of the base setting.
    """
    ablation = Ablation(dataset, settings, extractor)
    with tqdm(total=ablation.num_steps, unit="step", desc="ablation", disable=None) as bar:
        rows = ablation.run(lambda done: bar.update(done))
    ablated = [
        AblatedFigures(
            factor=row.setting.factor,
            value=row.setting.value,
            base=row.setting.is_base,
            keypoints_per_place=row.keypoints_per_place,
            **vars(row.figures),
        )
        for row in rows
    ]
    result = asdict(AblationSummary(**vars(describe(dataset)), ablation=ablated))
    if options.out:
        save_json(options.out / ABLATION_NAME, result)
    if options.json:
        print_json(result)
    else:
        print(ablation_table(result["dataset"], rows))
    return 0
