"""What each option of geometric verification costs and gains: the figures of docs/verification.md."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from effovpr_ros.core.cameras import CameraModel
from effovpr_ros.core.images import RgbImage, decode_image, read_image
from effovpr_ros.core.poses import Pose
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.geometry.points import KINDS, XFEAT, PointExtractor
from effovpr_ros.geometry.verification_config import VerificationConfig
from effovpr_ros.geometry.verified_matches import verify
from effovpr_ros.geometry.verifier import GeometricVerifier, Method, Verification, View, in_body_frame
from effovpr_ros.mapping.builder import make_thumbnail
from effovpr_ros.matching.reranking import RerankConfig, Reranker

pytestmark = pytest.mark.benchmark

OPTICAL_IN_BODY = Pose((0.0, 0.0, 0.0), (-0.5, 0.5, -0.5, 0.5))
NUM_RENDERED = 80
FALSE_PAIRS = 2
"""Of each query: the best re-ranked places that it does not show."""


@dataclass(frozen=True)
class Pair:
    """A query and the stored picture of a place, what is known of their cameras, and whether both show one scene."""

    images: tuple[RgbImage, RgbImage]
    query: View
    place: View
    same: bool

    def checked(self, verifier: GeometricVerifier, extractor: PointExtractor) -> Verification:
        query, place = map(extractor.extract, self.images)
        return verifier.verify(self.query, self.place, verify(query, [place], num_fundamental=0)[0])


def hard_pairs(
    extractor: FeatureExtractor,
    queries: list[Path],
    database: list[Path],
    fov_deg: float,
    same: Callable[[Path, Path], bool],
    other: Callable[[Path, Path], bool],
) -> list[Pair]:
    """The best re-ranked right place and the two best wrong ones of each query that has a right one."""
    features = {path: extractor.extract([read_image(path)])[0] for path in {*queries, *database}}
    reranker, pairs = Reranker(RerankConfig()), []
    for query in queries:
        mine = features[query]
        scores = reranker.score(mine.local, [features[place].local for place in database])
        order = sorted(range(len(database)), key=lambda d: -scores[d].score)
        right = [d for d in order if same(query, database[d])][:1]
        wrong = [d for d in order if other(query, database[d])][:FALSE_PAIRS]
        for d in right + wrong:
            image, place = read_image(query), read_image(database[d])
            thumbnail = decode_image(make_thumbnail(place, 320), database[d].name)
            views = [
                View(pixels.shape[1::-1], CameraModel.from_field_of_view(pixels.shape[1::-1], math.radians(fov_deg)))
                for pixels in (image, thumbnail)
            ]
            pairs.append(Pair((image, thumbnail), views[0], views[1], d in right))
    return pairs


def table(path: Path) -> set[tuple[int, int]]:
    with path.open(encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    return {(int(Path(query).stem), int(Path(place).stem)) for query, place in rows}


@pytest.mark.parametrize(
    ("name", "fov_deg", "least_accepted", "most_false"),
    [("lund_walk", 60.0, 0.9, 0), ("rtabmap_loop", 60.0, 0.85, 0), ("corridor_walk", 90.0, 0.0, 0)],
)
def test_real_pairs(
    offline_extractor: FeatureExtractor,
    real_images: Path,
    name: str,
    fov_deg: float,
    least_accepted: float,
    most_false: int,
):
    folder = real_images / name
    database = sorted((folder / ("database" if name == "corridor_walk" else "images")).glob("*.jpg"))
    queries = sorted((folder / "queries").glob("*.jpg")) if name == "corridor_walk" else database
    if name == "lund_walk":
        numbers = [int(path.stem) for path in queries]
        near = {(q, d) for q in numbers for d in (q - 1, q + 1)}
        apart = 3
    else:
        near = table(folder / ("positives.csv" if name == "corridor_walk" else "loops.csv"))
        apart = 8
    known = np.array(sorted(near))

    def same(query: Path, place: Path) -> bool:
        return (int(query.stem), int(place.stem)) in near

    def other(query: Path, place: Path) -> bool:
        q, d = int(query.stem), int(place.stem)
        allowed = name != "rtabmap_loop" or d < q - 9
        return allowed and bool(np.abs(known - (q, d)).sum(axis=1).min() > apart)

    pairs = hard_pairs(offline_extractor, queries, database, fov_deg, same, other)
    verifier = GeometricVerifier(VerificationConfig(verification="two_view"))
    for kind in KINDS:
        extractor = PointExtractor(kind=kind)
        answers, times = [], []
        for pair in pairs:
            started = time.perf_counter()
            answers.append(pair.checked(verifier, extractor))
            times.append((time.perf_counter() - started) * 1e3)
        right = [answer.accepted for answer, pair in zip(answers, pairs, strict=True) if pair.same]
        wrong = [answer.accepted for answer, pair in zip(answers, pairs, strict=True) if not pair.same]
        essential = sum(answer.accepted and answer.method is Method.ESSENTIAL for answer in answers)
        print(
            f"\n{name:14}{kind:8} accepted {sum(right)} of {len(right)} right ({essential} essential), {sum(wrong)} of "
            f"{len(wrong)} wrong; {np.median(times):.0f} ms",
        )
        if kind == XFEAT:
            assert sum(right) >= least_accepted * len(right) and sum(wrong) <= most_false


def test_rendered_pairs_with_depth():
    """A robot within 1.1 m and about 8 degrees of a place of the demo's building, with its 8-bit depth."""
    pytest.importorskip("vizdoom")
    from effovpr_ros.lab.simulation.drive import LEVEL
    from effovpr_ros.lab.simulation.level import FOCAL_XY_PX, IMAGE_SIZE_WH, Level

    camera = CameraModel(IMAGE_SIZE_WH, FOCAL_XY_PX, ((IMAGE_SIZE_WH[0] - 1) / 2.0, (IMAGE_SIZE_WH[1] - 1) / 2.0))
    rng, pairs, truths = np.random.default_rng(11), [], []
    with Level(LEVEL, depth=True) as level:
        floor = level.free_floor()
        roomy = np.argwhere(floor.clearance_m > 1.2)
        for _ in range(NUM_RENDERED):
            x, y = floor.position_m(tuple(roomy[rng.integers(len(roomy))].tolist()))
            yaw = rng.uniform(-math.pi, math.pi)
            place, (px, py, place_yaw) = level.view(x, y, yaw)
            dx, dy = rng.uniform(-0.8, 0.8, 2)
            query, (qx, qy, query_yaw) = level.view(x + dx, y + dy, yaw + rng.normal(0.0, math.radians(8.0)))
            depth = level.depth_m()
            thumbnail = decode_image(make_thumbnail(place, 320), "rendered")
            views = View(query.shape[1::-1], camera, depth), View(thumbnail.shape[1::-1], camera)
            pairs.append(Pair((query, thumbnail), *views, True))
            along, across = math.cos(place_yaw), math.sin(place_yaw)
            forward, left = along * (qx - px) + across * (qy - py), along * (qy - py) - across * (qx - px)
            truths.append((forward, left, math.remainder(query_yaw - place_yaw, math.tau)))
    verifier = GeometricVerifier(VerificationConfig(verification="metric"))
    for kind in KINDS:
        extractor = PointExtractor(kind=kind)
        errors, nees, spreads, times = [], [], [], []
        for pair, truth in zip(pairs, truths, strict=True):
            started = time.perf_counter()
            answer = in_body_frame(pair.checked(verifier, extractor), OPTICAL_IN_BODY)
            times.append((time.perf_counter() - started) * 1e3)
            if answer.relative_pose is None or answer.covariance is None:
                continue
            x, y, _ = answer.relative_pose.position_xyz
            turn = math.remainder(answer.relative_pose.yaw_rad - truth[2], math.tau)
            error = np.array([x - truth[0], y - truth[1], turn])
            planar = answer.covariance[np.ix_([0, 1, 5], [0, 1, 5])]
            errors.append((math.hypot(error[0], error[1]), math.degrees(abs(turn))))
            nees.append(float(error @ np.linalg.solve(planar, error)))
            spreads.append(math.sqrt(planar[0, 0] + planar[1, 1]))
        position, yaw_deg = np.percentile(errors, [50, 95], axis=0).T
        print(
            f"\n{kind:8} PnP {len(errors)} of {len(pairs)}; position median {position[0]:.3f} p95 {position[1]:.3f} m, "
            f"foretold {np.median(spreads):.3f} m; yaw {yaw_deg[0]:.2f} and {yaw_deg[1]:.2f} deg; squared error over "
            f"covariance (3 degrees of freedom) median {np.median(nees):.2f}, {np.mean(np.array(nees) > 11.3):.0%} "
            f"above 11.3; {np.median(times):.0f} ms"
        )
        if kind == XFEAT:
            assert len(errors) > 0.85 * len(pairs) and position[0] < 0.03 and yaw_deg[0] < 0.3
