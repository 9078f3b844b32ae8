"""`effovpr evaluate FORM --ablate`: which setting makes how much of a difference?"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from effovpr_ros.cli.options import print_json
from effovpr_ros.evaluation.ablation import FACTORS, Ablation, AblationRow, Setting
from effovpr_ros.evaluation.ground_truth import Dataset
from effovpr_ros.evaluation.summary import SCHEMA_VERSION, describe
from effovpr_ros.features.extractor import FeatureExtractor


def add_ablate_option(parser: argparse.ArgumentParser) -> None:
    """Add `--ablate`."""
    parser.add_argument(
        "--ablate",
        metavar="FACTOR,...",
        help=f"instead of --methods: vary some of {','.join(FACTORS)}, one at a time, around the settings given",
    )


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
    result = {
        "schema_version": SCHEMA_VERSION,
        **describe(dataset),
        "ablation": [
            {
                "factor": row.setting.factor,
                "value": row.setting.value,
                "base": row.setting.is_base,
                "keypoints_per_place": row.keypoints_per_place,
                **row.figures,
            }
            for row in rows
        ],
    }
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "ablation.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if options.json:
        print_json(result)
    else:
        print(_table(result["dataset"], rows))
    return 0


def _table(data: dict[str, Any], rows: Sequence[AblationRow]) -> str:
    lines = [
        f"{data['name']}: {data['queries']} queries, {data['queries_with_positives']} with a positive, "
        f"{data['database']} database images; * is the base setting",
        f"{'factor':12}{'value':>10} {'R@1':>6} {'95 %':>11}{'R@5':>7}{'AP':>7}{'R@P=1':>7}{'keypts':>8}{'ms':>8}"
        f"{'KB':>7}",
    ]
    for row in rows:
        figures = row.figures
        low, high = (100.0 * value for value in figures["recall_at_1_interval"])
        lines.append(
            f"{row.setting.factor:12}{row.setting.value!s:>10}{'*' if row.setting.is_base else ' '}"
            f"{100.0 * figures['recall']['1']:6.1f} {f'[{low:.0f}, {high:.0f}]':>11}"
            f"{100.0 * figures['recall']['5']:7.1f}{figures['average_precision']:7.3f}"
            f"{figures['recall_at_precision']['1.0']:7.3f}{row.keypoints_per_place:8.1f}"
            f"{figures['latency_ms']['total']['p50']:8.1f}{figures['bytes_per_place'] / 1e3:7.1f}"
        )
    return "\n".join(lines)
