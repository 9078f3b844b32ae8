"""Several sources, one command or one after the other: the map of plain builds, with their principal components too."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cluster_material import (
    BUILD,
    build_cut,
    build_plain,
    extractor_in,
    job_for,
    make_folder,
    open_folder,
    require_same,
    run_here,
    work_source,
)
from synthetic import picture, tiny_weights

from effovpr_ros.cli.main import main
from effovpr_ros.cluster import ray_workers
from effovpr_ros.cluster.building import build_shards
from effovpr_ros.cluster.parts import PartReport
from effovpr_ros.cluster.planning import PlannedMap
from effovpr_ros.cluster.work import Part, ShardJob, WorkSource, list_work
from effovpr_ros.core.errors import MapError, ModelMismatchError
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.mapping.manifest import Manifest
from effovpr_ros.mapping.merge import MergeConfig, merge_maps
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.session_cameras import read_cameras
from effovpr_ros.mapping.sharded_map import ShardedMap, open_map
from effovpr_ros.mapping.sharding import shard_map
from effovpr_ros.sources.bag_writer import BagWriter
from effovpr_ros.sources.frame import PoseKind, PoseOrigin

PCA = 8


@pytest.fixture(scope="module")
def extractor(tmp_path_factory: pytest.TempPathFactory) -> FeatureExtractor:
    return extractor_in(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def drives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Monday 40 m, 20 places; Tuesday the 11 m after it, 6 places."""
    folder = tmp_path_factory.mktemp("drives")
    return make_folder(folder / "monday"), make_folder(folder / "tuesday", 11, first=40)


@pytest.fixture(scope="module")
def plain(
    tmp_path_factory: pytest.TempPathFactory, drives: tuple[Path, Path], extractor: FeatureExtractor
) -> tuple[Path, Path]:
    """The map of both drives, and the one that is searched by principal components."""
    folder = tmp_path_factory.mktemp("plain")
    sources = [open_folder(drive) for drive in drives]
    return (
        build_plain(*sources, out=folder / "city", extractor=extractor),
        build_plain(*sources, out=folder / "by_pca", extractor=extractor, pca=PCA),
    )


def both(drives: tuple[Path, Path], out: Path, extractor: FeatureExtractor) -> ShardJob:
    sources = [open_folder(drive) for drive in drives]
    return replace(job_for(sources[0], str(out), extractor), sources=tuple(map(work_source, sources)), total=26)


def items_of(drives: Sequence[Path]) -> list[list]:
    return [list_work(open_folder(drive), BUILD)[0] for drive in drives]


def add(drive: Path, out: Path, extractor: FeatureExtractor, **changed: object) -> int:
    source = open_folder(drive)
    return build_cut(source, replace(job_for(source, str(out), extractor), **changed), 4).places  # type: ignore[arg-type]


def test_two_sources_give_the_plain_map(
    drives: tuple[Path, Path], plain: tuple[Path, Path], extractor: FeatureExtractor, tmp_path: Path
):
    report = build_shards(both(drives, tmp_path / "city", extractor), items_of(drives), 8, run_here)
    # 20 places in 8, 8 and 4; a part ends with its source; 6 in one.
    assert (report.places, report.shards, report.images) == (26, 4, 26)
    with open_map(tmp_path / "city") as made, open_map(plain[0]) as one:
        require_same(made, one)
        assert made.manifest.session_frames == one.manifest.session_frames
        assert made.check() == []


def test_a_drive_is_added_beside_what_is_there(
    drives: tuple[Path, Path], plain: tuple[Path, Path], extractor: FeatureExtractor, tmp_path: Path
):
    out = tmp_path / "city"
    assert add(drives[0], out, extractor) == 20
    before = {path: path.stat().st_mtime_ns for path in out.glob("shards/*/*")}
    assert add(drives[1], out, extractor) == 26
    assert {path: path.stat().st_mtime_ns for path in before} == before
    # Both commands once more.
    assert [add(drive, out, extractor) for drive in drives] == [26, 26]
    with open_map(out) as made, open_map(plain[0]) as one:
        require_same(made, one)
        assert made.manifest.session_frames == one.manifest.session_frames
        assert made.check() == []
    merge_maps(tmp_path / "merged", [out], MergeConfig())
    with open_map(tmp_path / "merged") as merged, open_map(plain[0]) as one:
        require_same(merged, one)
        assert not [key for key in merged.store.property_keys() if key.startswith("shard")]


def test_a_drive_is_added_to_a_map_that_was_cut(
    drives: tuple[Path, Path], plain: tuple[Path, Path], extractor: FeatureExtractor, tmp_path: Path
):
    build_plain(open_folder(drives[0]), out=tmp_path / "one", extractor=extractor)
    shard_map(tmp_path / "one", tmp_path / "city", 3)
    assert add(drives[1], tmp_path / "city", extractor) == 26
    with open_map(tmp_path / "city") as made, open_map(plain[0]) as one:
        assert isinstance(made, ShardedMap)
        assert [entry.name for entry in made.shards] == ["00000", "00001", "00002", "00003", "00004"]
        require_same(made, one)


@pytest.mark.parametrize("kept", ["nothing", "the list", "the manifest"])
def test_a_kill_while_shards_are_named_leaves_the_map_before_or_after(
    drives: tuple[Path, Path],
    plain: tuple[Path, Path],
    extractor: FeatureExtractor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kept: str,
):
    out = tmp_path / "city"
    add(drives[0], out, extractor)
    listed, whole = out / "shards.json", Manifest.write

    def killed(self: Manifest, folder: Path) -> Manifest:
        if folder != out or kept == "nothing":
            if folder == out:
                raise KeyboardInterrupt
            return whole(self, folder)
        manifest = (out / "map.yaml").read_bytes()
        whole(self, folder)
        if kept == "the list":
            (out / "map.yaml").write_bytes(manifest)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            add(drives[1], out, extractor)
    assert (b"tuesday" in listed.read_bytes()) is (kept != "nothing")
    with open_map(out) as left:
        assert len(left) == (26 if kept == "the manifest" else 20)
        assert left.sessions == ["monday", "tuesday"][: 2 if kept == "the manifest" else 1]
        assert left.check() == []
    assert add(drives[1], out, extractor) == 26
    with open_map(out) as made, open_map(plain[0]) as one:
        require_same(made, one)


def test_another_drive_waits_for_the_one_that_was_begun(
    drives: tuple[Path, Path], extractor: FeatureExtractor, tmp_path: Path
):
    out = tmp_path / "city"
    add(drives[0], out, extractor)
    source = open_folder(drives[1])
    job = job_for(source, str(out), extractor)

    def interrupted(job: ShardJob, parts: Sequence[Part]) -> Iterator[PartReport]:
        yield next(run_here(job, parts))  # type: ignore[call-overload]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_cut(source, job, 4, interrupted)
    with pytest.raises(MapError, match=r"remove .*/city/build.json and the shards from 00005 on to give it up"):
        build_cut(source, replace(job, with_points=True), 4)
    report = build_cut(source, job, 4)
    assert (report.places, report.done_before, report.shards) == (26, 4, 2)


def test_principal_components_are_those_of_the_plain_map(
    drives: tuple[Path, Path],
    plain: tuple[Path, Path],
    extractor: FeatureExtractor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    job = replace(both(drives, tmp_path / "city", extractor), principal_components=PCA)
    added, calls = PlaceMap.set_pca, 0

    def killed(self: PlaceMap, pca: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        added(self, pca)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(PlaceMap, "set_pca", killed)
        with pytest.raises(KeyboardInterrupt):
            build_shards(job, items_of(drives), 8, run_here)
    assert build_shards(job, items_of(drives), 8, run_here).done_before == 26
    with open_map(tmp_path / "city") as made, open_map(plain[1]) as one:
        assert made.global_dim == one.global_dim == PCA
        require_same(made, one)
        assert made.check() == []
    assert not (tmp_path / "city/projection.npz").exists()


def test_what_is_added_has_the_components_of_the_map(
    drives: tuple[Path, Path], extractor: FeatureExtractor, tmp_path: Path
):
    build_plain(open_folder(drives[0]), out=tmp_path / "one", extractor=extractor, pca=PCA)
    add(drives[0], tmp_path / "city", extractor, principal_components=PCA)
    assert add(drives[1], tmp_path / "city", extractor, principal_components=PCA) == 26
    # A plain map that is added to keeps its components too.
    with PlaceMap.open(tmp_path / "one", writable=True) as one:
        from effovpr_ros.mapping.builder import build_map

        build_map(one, extractor, open_folder(drives[1]).frames(), BUILD)
        with open_map(tmp_path / "city") as made:
            require_same(made, one)


def test_a_worker_with_other_weights_is_refused(drives: tuple[Path, Path], extractor: FeatureExtractor, tmp_path: Path):
    source = open_folder(drives[0])
    job = job_for(source, str(tmp_path / "city"), extractor)
    job = replace(job, fingerprint=replace(job.fingerprint, weights_sha256="0" * 64))
    with pytest.raises(ModelMismatchError, match=r"another model than the command .*weights.*give all machines"):
        build_cut(source, job, 8)


def source_of(session: str, kind: PoseKind, frame: str = "", datum: Datum | None = None) -> WorkSource:
    return WorkSource("here", "", session, "", PoseOrigin(kind, frame, datum=datum), None)


def test_poses_that_do_not_relate_are_refused_before_anything_is_read(
    drives: tuple[Path, Path], extractor: FeatureExtractor, tmp_path: Path
):
    items = items_of(drives)[0]
    planned = PlannedMap(tmp_path / "city", "odom", None)
    assert planned.join(source_of("a", PoseKind.DRIVE, "odom"), items) == [
        "poses in 'odom' are the map's, whose frame is called 'odom'"
    ]
    with pytest.raises(MapError, match=r"does not relate to the frame 'odom' of map .*city: each drive's odometry"):
        planned.join(source_of("b", PoseKind.DRIVE, "odom"), items)
    with pytest.raises(MapError, match=r"has a session 'a' already, or will have; .* at --session"):
        planned.join(source_of("a", PoseKind.DRIVE, "odom"), items)
    fixes = source_of("c", PoseKind.EARTH, datum=Datum(GeoPoint(55.0, 13.0)))
    with pytest.raises(MapError, match="has poses, but no datum to place geo-tags by"):
        planned.join(fixes, items)
    on_earth = PlannedMap(tmp_path / "city", "map", None)
    bare = [replace(item, pose=None) for item in items]
    on_earth.join(source_of("a", PoseKind.NONE), bare)
    on_earth.join(fixes, items)
    assert on_earth.datum == Datum(GeoPoint(55.0, 13.0))


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts are built in this process."""

    @contextmanager
    def connected(config: object) -> Iterator[int]:
        yield 1

    monkeypatch.setattr(ray_workers, "connected", connected)
    monkeypatch.setattr(ray_workers, "run_on_ray", lambda job, parts, pool, workers: run_here(job, parts))


def build(weights: Path, out: Path, *more: str | Path) -> int:
    model = ["--model", "vit_tiny_test_patch14", "--weights", str(weights), "--size", "56", "--t1", "0.0"]
    fast = ["--points", "none", "--device", "cpu", "--engine", "torch", "--batch-size", "4"]
    return main(["map", "build", str(out), *map(str, more), *model, *fast])


def table_of(drive: Path) -> list[str | Path]:
    return [drive, "--table", drive / "poses.csv", "--spacing-m", "1.5"]


def test_the_command_builds_adds_and_repeats(
    drives: tuple[Path, Path],
    plain: tuple[Path, Path],
    without_ray: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    weights, out = tiny_weights(tmp_path), tmp_path / "city"
    for drive in (*drives, *drives):
        assert build(weights, out, *table_of(drive), "--cluster", "--pca", str(PCA)) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"map {out}: 20 places, 1 shards of this build")
    # Both commands once more: nothing is done.
    assert [line for line in said if " a second by " in line][2:] == [
        "0 images at 0.0 a second by no engine, 20 before",
        "0 images at 0.0 a second by no engine, 6 before",
    ]
    with open_map(out) as made, open_map(plain[0]) as one:
        assert (made.global_dim, made.sessions) == (PCA, one.sessions)
        assert made.places() == one.places()
    assert build(weights, out, *table_of(drives[0]), "--cluster", "--spacing-m", "3") == 1
    assert "has a session 'monday' already" in capsys.readouterr().err
    assert build(weights, out, *table_of(drives[1]), "--cluster", "--session", "b", "--pca", "4") == 1
    assert "is searched by 8 principal components, and --pca 4 would change" in capsys.readouterr().err
    assert build(weights, out, *table_of(drives[1])) == 1
    assert "lies in shards; add to it with --cluster, or make a map of one folder" in capsys.readouterr().err
    assert build(weights, tmp_path / "flat", *table_of(drives[0])) == 0
    assert build(weights, tmp_path / "flat", *table_of(drives[1]), "--cluster") == 1
    assert "is of one folder; add to it without --cluster, or cut it with" in capsys.readouterr().err
    assert build(weights, tmp_path / "few", *table_of(drives[1]), "--cluster", "--pca", "7") == 1
    assert "--pca 7 needs at least that many places" in capsys.readouterr().err
    assert not (tmp_path / "few").exists()


def test_several_folders_are_sessions_with_and_without_a_cluster(
    without_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    # Pictures of which nothing says where they were taken.
    folders = [make_folder(tmp_path / name, 6, first=first) for name, first in (("north", 0), ("south", 10))]
    for folder in folders:
        (folder / "poses.csv").unlink()
    weights = tiny_weights(tmp_path)
    assert build(weights, tmp_path / "one", *folders) == 0
    assert build(weights, tmp_path / "cut", *folders, "--cluster") == 0
    with open_map(tmp_path / "cut") as made, open_map(tmp_path / "one") as one:
        assert one.sessions == ["north", "south"]
        require_same(made, one)
    capsys.readouterr()
    for cluster in ([], ["--cluster"]):
        assert build(weights, tmp_path / "new", *folders, "--session", "a", *cluster) == 1
        assert "--session is of one source, and 2 are named; build one after the other" in capsys.readouterr().err
        assert build(weights, tmp_path / "new", folders[0], folders[0], *cluster) == 1
        assert "is named twice; name each source once" in capsys.readouterr().err
        # Both would be one session.
        same = tmp_path / "other" / "north"
        shutil.copytree(folders[1], same, dirs_exist_ok=True)
        assert build(weights, tmp_path / f"same{len(cluster)}", folders[0], same, *cluster) == 1
        assert "by a command of its own, with another name at --session" in capsys.readouterr().err


def test_cameras_of_a_bag_are_sessions_with_a_cluster_too(without_ray: None, tmp_path: Path):
    topics = ["/front/image_raw", "/rear/image_raw"]
    with BagWriter(tmp_path / "drive") as writer:
        for number in range(6):
            stamp_ns = (100 + number) * 10**9
            pose = Pose.from_yaw(float(number), 0.0, 0.0)
            writer.write_odometry("/odom", stamp_ns, pose, frame_id="odom", child_frame_id="base_link")
            for first, topic in zip((0, 20), topics, strict=True):
                writer.write_image(topic, stamp_ns, picture(first + number), topic.split("/")[1])
    weights = tiny_weights(tmp_path)
    for name, cluster in (("one", []), ("cut", ["--cluster"])):
        given = [tmp_path / "drive", "--image-topic", *topics, "--spacing-m", "1.5", *cluster]
        assert build(weights, tmp_path / name, *given) == 0
    with open_map(tmp_path / "cut") as made, open_map(tmp_path / "one") as one:
        assert one.sessions == ["drive:front", "drive:rear"]
        require_same(made, one)
        assert read_cameras(made) == read_cameras(one)
        assert made.manifest.session_frames == one.manifest.session_frames
