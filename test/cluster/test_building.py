"""A build in parts gives the map of a plain build, whatever the cut; what was interrupted goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import fsspec
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
)
from synthetic import picture

from effovpr_ros.cluster import shard_builder, storage
from effovpr_ros.cluster.building import build_shards
from effovpr_ros.cluster.fetching import listed_folder
from effovpr_ros.cluster.parts import PartReport, finished
from effovpr_ros.cluster.shard_builder import ShardBuilder
from effovpr_ros.cluster.storage import Storage
from effovpr_ros.cluster.work import Part, ShardJob, cut, list_work, places_per_part
from effovpr_ros.core.errors import ConfigError, InUseError, MapError, SourceError
from effovpr_ros.core.file_lock import FileLock
from effovpr_ros.core.poses import Pose
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.sharded_map import open_map
from effovpr_ros.recognition.recognizer import Hint, PlaceRecognizer, RecognizerConfig
from effovpr_ros.sources.bag_writer import BagWriter
from effovpr_ros.sources.bags import BagSource
from effovpr_ros.sources.map_source import open_source


@pytest.fixture(scope="module")
def extractor(tmp_path_factory: pytest.TempPathFactory) -> FeatureExtractor:
    return extractor_in(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("images") / "drive")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, images: Path, extractor: FeatureExtractor) -> Path:
    return build_plain(open_folder(images), out=tmp_path_factory.mktemp("plain") / "city", extractor=extractor)


@pytest.mark.parametrize("part_places", [4, 8, 12, 100])
def test_any_cut_gives_the_plain_map(
    images: Path, plain: Path, extractor: FeatureExtractor, tmp_path: Path, part_places: int
):
    source, done = open_folder(images), []
    report = build_cut(source, job_for(source, str(tmp_path / "city"), extractor), part_places, progress=done.append)
    # 40 images 1 m apart, a place every 1.5 m at least: every second image.
    assert (report.places, report.images, sum(done)) == (20, 20, 20)
    assert report.shards == -(-20 // part_places)
    with open_map(tmp_path / "city") as made, open_map(plain) as one:
        require_same(made, one)
        assert made.check() == []
    assert sorted(path.name for path in (tmp_path / "city").iterdir()) == [
        *("build.json", "map.yaml", "places.sqlite3", "shards", "shards.json")
    ]


def test_a_query_has_the_answer_of_the_plain_map(
    images: Path, plain: Path, extractor: FeatureExtractor, tmp_path: Path
):
    source = open_folder(images)
    build_cut(source, job_for(source, str(tmp_path / "city"), extractor), 8)
    config = RecognizerConfig(top_k=10, verify="off")
    with open_map(tmp_path / "city", shard_bytes=0) as made, open_map(plain) as one:
        recognizers = [PlaceRecognizer(extractor, place_map, config) for place_map in (made, one)]
        for number in (0, 7, 22):
            for hint in (None, Hint((20.0, 0.0, 0.0), 9.0)):
                mine, theirs = (recognizer.recognize(picture(number), hint=hint) for recognizer in recognizers)
                assert len(mine.candidates) == (10 if hint is None else 9)
                for name in ("status", "confidence", "candidates", "pose", "geo", "bearing_offset", "reason"):
                    assert getattr(mine, name) == getattr(theirs, name), name


def test_images_that_cannot_be_read_are_said_and_left_out(extractor: FeatureExtractor, tmp_path: Path):
    images = make_folder(tmp_path / "drive", broken=(0, 6, 8, 10, 12, 22, 23))
    build_plain(open_folder(images), out=tmp_path / "plain", extractor=extractor)
    source = open_folder(images)
    report = build_cut(source, job_for(source, str(tmp_path / "city"), extractor), 4)
    # Images 0, 2, 4 ... become places but for 0, 6, 8, 10, 12 and 22; the second shard, 8 to 14, keeps one.
    assert report.places == 14
    assert [name for name, _ in report.unreadable] == ["000.png", "006.png", "008.png", "010.png", "012.png", "022.png"]
    with open_map(tmp_path / "city") as made, open_map(tmp_path / "plain") as one:
        # The plain build's batches are not the same, and the last bit of a descriptor may depend on its batch.
        require_same(made, one, descriptors_within=1e-3)


def test_a_part_without_a_place_leaves_no_shard(extractor: FeatureExtractor, tmp_path: Path):
    source = open_folder(make_folder(tmp_path / "drive", broken=(8, 10, 12, 14)))
    report = build_cut(source, job_for(source, str(tmp_path / "city"), extractor), 4)
    assert (report.places, report.shards) == (16, 4)
    with open_map(tmp_path / "city") as made:
        assert [place.place_id for place in made.places()] == list(range(16))


def test_nothing_that_can_be_read_makes_no_map(extractor: FeatureExtractor, tmp_path: Path):
    source = open_folder(make_folder(tmp_path / "drive", count=4, broken=range(4)))
    with pytest.raises(SourceError, match=r"0 places built: no image of .*drive can be read; the first: 000.png"):
        build_cut(source, job_for(source, str(tmp_path / "city"), extractor), 4)


def make_bag(path: Path, count: int = 24) -> Path:
    """Images 1 m apart."""
    with BagWriter(path) as writer:
        for number in range(count):
            stamp_ns = (100 + number) * 10**9
            pose = Pose.from_yaw(float(number), 0.0, 0.0)
            writer.write_odometry("/odom", stamp_ns, pose, frame_id="odom", child_frame_id="base_link")
            writer.write_image("/camera/image_raw", stamp_ns, picture(number), "camera")
    return path


@pytest.mark.parametrize("part_places", [4, 8])
def test_parts_of_a_bag_give_the_plain_map(extractor: FeatureExtractor, tmp_path: Path, part_places: int):
    source = open_source(make_bag(tmp_path / "drive"), pose_topic="/odom")
    build_plain(source, out=tmp_path / "plain", extractor=extractor)
    report = build_cut(source, job_for(source, str(tmp_path / "city"), extractor), part_places)
    assert (report.places, report.shards) == (12, -(-12 // part_places))
    with open_map(tmp_path / "city") as made, open_map(tmp_path / "plain") as one:
        require_same(made, one)
        assert made.stored_sources("drive") == one.stored_sources("drive")


def test_a_bag_is_read_from_an_image_on(tmp_path: Path):
    bag = BagSource(make_bag(tmp_path / "drive", 6), pose_topic="/odom")
    everything = [(position, frame.stamp_ns) for position, frame in bag.numbered_frames()]
    assert [position.number for position, _ in everything] == [0, 1, 2, 3, 4, 5]
    for start, (position, _) in enumerate(everything):
        assert [(at, frame.stamp_ns) for at, frame in bag.numbered_frames(since=position)] == everything[start:]


def test_a_bag_that_was_replaced_is_said(extractor: FeatureExtractor, tmp_path: Path):
    source = open_source(make_bag(tmp_path / "drive"), pose_topic="/odom")
    items, _ = list_work(source, BUILD)
    job = job_for(source, str(tmp_path / "city"), extractor)
    shutil.rmtree(tmp_path / "drive")
    make_bag(tmp_path / "drive", 6)
    with pytest.raises(SourceError, match=r"of 3 shards failed, the first: bag .*drive has lost . images since it was"):
        build_shards(job, [items], 4, run_here)


def failing_after(count: int, error: BaseException):
    def run(job: ShardJob, parts: Sequence[Part]) -> Iterator[PartReport]:
        builder = ShardBuilder(job)
        for part in parts[:count]:
            yield builder.build(part)
        raise error

    return run


def test_a_build_goes_on_where_it_was_interrupted(
    images: Path, plain: Path, extractor: FeatureExtractor, tmp_path: Path
):
    source = open_folder(images)
    job = job_for(source, str(tmp_path / "city"), extractor)
    with pytest.raises(KeyboardInterrupt):
        build_cut(source, job, 8, failing_after(2, KeyboardInterrupt()))
    with pytest.raises(MapError, match=r"holds no map\.yaml"):
        open_map(tmp_path / "city")
    (tmp_path / "city/shards/.working-abcdefgh").mkdir()
    seen: list[int] = []

    def counting(job: ShardJob, parts: Sequence[Part]) -> Iterator[PartReport]:
        seen.extend(part.number for part in parts)
        return run_here(job, parts)

    # The cut is the first one's, whatever is asked for now.
    report = build_cut(source, job, 4, counting)
    assert seen == [2]
    assert (report.places, report.done_before) == (20, 16)
    # And once more there is nothing to do.
    again = build_cut(source, job, 4, failing_after(0, AssertionError()))
    assert (again.places, again.done_before, again.worker_seconds) == (20, 20, 0)
    with open_map(tmp_path / "city") as made, open_map(plain) as one:
        require_same(made, one)
    assert sorted(path.name for path in (tmp_path / "city/shards").iterdir()) == ["00000", "00001", "00002"]


def test_a_part_that_is_done_twice_counts_once(images: Path, plain: Path, extractor: FeatureExtractor, tmp_path: Path):
    source = open_folder(images)
    job = job_for(source, str(tmp_path / "city"), extractor)

    def twice(job: ShardJob, parts: Sequence[Part]) -> Iterator[PartReport]:
        yield from run_here(job, parts[::-1])
        yield from run_here(job, parts)

    done: list[int] = []
    report = build_cut(source, job, 8, twice, progress=done.append)
    assert (report.places, sum(done)) == (20, 20)
    with open_map(tmp_path / "city") as made, open_map(plain) as one:
        require_same(made, one)


def test_another_build_in_the_same_folder_is_refused(images: Path, extractor: FeatureExtractor, tmp_path: Path):
    source = open_folder(images)
    job = job_for(source, str(tmp_path / "city"), extractor)
    with pytest.raises(KeyboardInterrupt):
        build_cut(source, job, 8, failing_after(1, KeyboardInterrupt()))
    with pytest.raises(MapError, match=r"was begun with other images, .* repeat the command .*, or remove .*/city to"):
        build_cut(source, replace(job, name="other"), 8)
    lock = FileLock(tmp_path / "city/building.lock")
    with pytest.raises(InUseError, match=r"is being built by .*; wait for its end, or stop it"):
        build_cut(source, job, 8)
    lock.release()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").touch()
    with pytest.raises(MapError, match=r"is not empty \(it holds letter.txt\); choose a new folder"):
        build_cut(source, replace(job, out=str(tmp_path / "full")), 8)


def test_a_part_that_fails_is_named_and_tried_again(
    images: Path, extractor: FeatureExtractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = open_folder(images)
    job = job_for(source, str(tmp_path / "city"), extractor)
    with monkeypatch.context() as patch:

        def fails(*_: object, **__: object) -> None:
            raise MapError("the disk is full")

        patch.setattr(shard_builder, "join_session", fails)
        with pytest.raises(SourceError, match="3 of 3 shards failed, the first: the disk is full; the others are kept"):
            build_cut(source, job, 8)
    assert build_cut(source, job, 8).places == 20


def test_workers_of_another_version_are_refused(images: Path, extractor: FeatureExtractor, tmp_path: Path):
    source = open_folder(images)
    job = job_for(source, str(tmp_path / "city"), extractor, version="0.1")
    with pytest.raises(ConfigError, match=r"a worker has effovpr_ros .*, the command 0.1; install one version on all"):
        build_cut(source, job, 8)


@pytest.fixture
def memory() -> Iterator[str]:
    """A folder of fsspec's in-memory file system."""
    url = f"memory://{uuid4().hex}"
    yield url
    fsspec.filesystem("memory").rm(url, recursive=True)


def test_images_and_shards_may_lie_in_an_object_store(
    images: Path, plain: Path, extractor: FeatureExtractor, tmp_path: Path, memory: str
):
    store = Storage(memory)
    for path in images.iterdir():
        store.write(f"drive/{path.name}", path.read_bytes())
    with listed_folder(store.below("drive"), heads=False) as listed:
        assert listed.name == "drive"
        source = open_source(listed, table=images / "poses.csv")
        items, close = list_work(source, BUILD)
    assert (len(items), close) == (20, 20)
    job = job_for(source, f"{memory}/city", extractor)
    job = replace(job, sources=(replace(job.sources[0], url=f"{memory}/drive"),))
    with pytest.raises(KeyboardInterrupt):
        build_shards(job, [items], 8, failing_after(1, KeyboardInterrupt()))
    assert list(finished(Storage(job.out))) == [0]
    # As a worker that was cut off while it wrote leaves it.
    Storage(job.out).write("shards/00001-0badc0de/map.yaml", b"half")
    assert build_shards(job, [items], 8, run_here).done_before == 8
    Storage(job.out).fetch(tmp_path / "city")
    with open_map(tmp_path / "city") as made, open_map(plain) as one:
        require_same(made, one)
        assert made.check() == []


def test_a_file_url_is_a_folder(images: Path, plain: Path, extractor: FeatureExtractor, tmp_path: Path):
    source = open_folder(images)
    job = job_for(source, f"file://{tmp_path}/city", extractor)
    job = replace(job, sources=(replace(job.sources[0], url=f"file://{images}"),))
    build_cut(source, job, 8)
    with open_map(tmp_path / "city") as made, open_map(plain) as one:
        require_same(made, one)


def test_a_store_that_fails_now_and_then_is_asked_again(memory: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(storage, "_FIRST_WAIT_S", 0.001)
    store = Storage(memory)
    store.write("a", b"content")
    files = type(fsspec.filesystem("memory"))
    whole, failures = files.cat_file, [OSError("reset"), TimeoutError("late"), RuntimeError("503 slow down")]

    def now_and_then(self: object, *arguments: object, **named: object) -> bytes:
        if failures:
            raise failures.pop()
        return whole(self, *arguments, **named)

    monkeypatch.setattr(files, "cat_file", now_and_then)
    assert store.read("a") == b"content"
    failures.extend([OSError("reset")] * 6)
    with pytest.raises(MapError, match=r"a cannot be read \(reset, tried 6 times\); see that it can be reached"):
        store.read("a")
    with pytest.raises(FileNotFoundError):
        store.read("b")
    with pytest.raises(ConfigError, match=r"nowhere://x cannot be used: .*; install the driver of its file system"):
        Storage("nowhere://x").read("a")


def test_a_folder_has_its_name_at_once_or_not(tmp_path: Path):
    store = Storage(str(tmp_path / "out"))
    for content, free in (("first", True), ("second", False)):
        with store.work_folder() as work:
            (work / "new").mkdir()
            (work / "new" / "file").write_text(content)
            assert store.put(work / "new", "shards/1") is free
    assert (tmp_path / "out/shards/1/file").read_text() == "first"
    assert store.names() == ["shards"]


def test_parts_are_whole_batches():
    assert places_per_part(total=1000, workers=2, wanted=0, batch_size=8) == 128  # 1000 / 8, in whole batches
    assert places_per_part(total=10, workers=2, wanted=0, batch_size=8) == 64
    assert places_per_part(total=10**7, workers=2, wanted=0, batch_size=8) == 8192
    assert places_per_part(total=10**7, workers=2, wanted=100, batch_size=8) == 104
    assert [part.number for part in cut([list(range(9))], 4)] == [0, 1, 2]  # type: ignore[arg-type]
    assert [len(part.items) for part in cut([list(range(9))], 4)] == [4, 4, 1]  # type: ignore[arg-type]


def test_reports_survive_being_stored(images: Path, extractor: FeatureExtractor, tmp_path: Path):
    source = open_folder(images)
    build_cut(source, job_for(source, str(tmp_path / "city"), extractor), 100)
    text = (tmp_path / "city/shards/00000/part.json").read_text()
    report = PartReport.from_json(text)
    assert json.loads(report.to_json()) == json.loads(text)
    assert report.shard is not None
    assert report.shard.places().tolist() == list(range(20))
    assert report.shard.entry.extent_xy == (0.0, 0.0, 38.0, 0.0)
    with pytest.raises(MapError, match="a report of a shard is damaged"):
        PartReport.from_json("{}")


def test_the_plain_build_chooses_places_by_poses_alone(extractor: FeatureExtractor, tmp_path: Path):
    # Image 2 has gone since the table was written: 4 is the next place, as 2 was one, and not 3, 1.5 m behind 0.
    images = make_folder(tmp_path / "drive", count=8)
    source = open_folder(images)
    (images / "002.png").unlink()
    build_plain(source, out=tmp_path / "plain", extractor=extractor)
    with PlaceMap.open(tmp_path / "plain") as one:
        assert [place.source for place in one.places()] == ["000.png", "004.png", "006.png"]
    shutil.rmtree(tmp_path / "plain")
