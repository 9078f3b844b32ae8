"""A map in shards answers as the one map that it was made of; what is wrong with a shard is said by its name."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from synthetic import FINGERPRINT, features, new_place

from effovpr_ros.core.errors import MapError, MapFormatError, ModelMismatchError
from effovpr_ros.core.geodesy import Datum
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.mapping import shard_joining
from effovpr_ros.mapping.manifest import read_manifest
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.mapping.merge import MergeConfig, merge_maps
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.shard_joining import join_shards
from effovpr_ros.mapping.shard_numbers import ShardNumbers
from effovpr_ros.mapping.sharded_map import ShardedMap, open_map
from effovpr_ros.mapping.sharding import cut_places, shard_map
from effovpr_ros.mapping.shards import ShardEntry, extent_of

DATUM = Datum(GeoPoint(50.0, 8.0, 100.0))


def corners(number: int, session: str) -> Pose | None:
    """Places of session a go back and forth between two corners 100 m apart; every fifth has no pose."""
    return None if number % 5 == 4 else Pose.from_yaw(100.0 * (number % 2), 0.1 * number, 0.0)


def make(folder: Path, count: int = 40) -> Path:
    """Two sessions; the second has a frame of its own, and geo-tags that place a few in the map."""
    with PlaceMap.create(folder, fingerprint=FINGERPRINT, datum=DATUM, name="site") as place_map:
        places = [new_place(number, pose=corners(number, "a")) for number in range(count)]
        places[7] = replace(places[7], points=b"points of place seven")
        place_map.add(places)
        place_map.set_session_frame("b", "odom_b")
        place_map.add([new_place(count + n, session="b", geo=GeoPoint(50.0, 8.0 + 0.001 * n, None)) for n in range(10)])
        place_map.set_property("confidence", b"fitted")
        place_map.flush()
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("one") / "site")


def queries(count: int = 12) -> np.ndarray:
    found = np.random.default_rng(3).normal(size=(count, 4)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def require_equal(sharded: MapReader, one: MapReader) -> None:
    assert len(sharded) == len(one)
    assert sharded.sessions == one.sessions
    assert sharded.places() == one.places()
    assert sharded.next_id == one.next_id
    np.testing.assert_array_equal(sharded.global_descriptors(), one.global_descriptors())
    for place in one.places():
        number = place.place_id
        assert sharded.place(number) == place
        assert sharded.thumbnail(number) == one.thumbnail(number)
        np.testing.assert_array_equal(sharded.global_descriptor(number), one.global_descriptor(number))
    numbers = [place.place_id for place in one.places()][::-3]
    for mine, theirs in zip(sharded.local_features(numbers), one.local_features(numbers), strict=True):
        np.testing.assert_array_equal(mine.codes, theirs.codes)
        np.testing.assert_array_equal(mine.cells_xy, theirs.cells_xy)
    assert sharded.points(numbers) == one.points(numbers)
    for query in queries():
        assert sharded.search(query, 7) == one.search(query, 7)
        assert sharded.search(query, 7, before=23) == one.search(query, 7, before=23)
        assert sharded.search(query, 100) == one.search(query, 100)
        near = one.rows_near((100.0, 2.0), 1.5)
        np.testing.assert_array_equal(sharded.rows_near((100.0, 2.0), 1.5), near)
        assert sharded.search(query, 3, within=near) == one.search(query, 3, within=near)
        is_b = lambda place: place.session == "b"  # noqa: E731
        assert sharded.search(query, 3, within=is_b) == one.search(query, 3, within=is_b)


@pytest.mark.parametrize(("shards", "by"), [(1, "place"), (2, "place"), (7, "place"), (2, "session")])
def test_it_answers_as_the_one_map(one: Path, tmp_path: Path, shards: int, by: str):
    done: list[int] = []
    assert shard_map(one, tmp_path / "cut", shards, by, done.append) == 50  # type: ignore[arg-type]
    assert sum(done) == 50
    with open_map(tmp_path / "cut") as sharded, open_map(one) as whole:
        assert isinstance(sharded, ShardedMap)
        assert isinstance(whole, PlaceMap)
        assert (sharded.name, sharded.frame_id, sharded.datum) == ("site", "map", DATUM)
        assert sharded.get_property("confidence") == b"fitted"
        assert sharded.stored_sources("b") == whole.stored_sources("b")
        require_equal(sharded, whole)
        assert sharded.check() == []


def test_it_becomes_the_one_map_again(one: Path, tmp_path: Path):
    shard_map(one, tmp_path / "cut", 3)
    assert merge_maps(tmp_path / "again", [tmp_path / "cut"], MergeConfig()) == 50
    with PlaceMap.open(tmp_path / "again") as again, PlaceMap.open(one) as whole:
        require_equal(again, whole)
        assert again.places_sha256 == whole.places_sha256
        assert again.get_property("confidence") == b"fitted"
        assert again.check() == []
    shard_map(tmp_path / "cut", tmp_path / "finer", 5)
    with open_map(tmp_path / "finer") as finer, PlaceMap.open(one) as whole:
        require_equal(finer, whole)


def test_principal_components_stay(tmp_path: Path):
    make(tmp_path / "site")
    with PlaceMap.open(tmp_path / "site", writable=True) as place_map:
        place_map.fit_pca(3)
    shard_map(tmp_path / "site", tmp_path / "cut", 4)
    merge_maps(tmp_path / "again", [tmp_path / "cut"], MergeConfig())
    with open_map(tmp_path / "cut") as cut, open_map(tmp_path / "again") as again, open_map(tmp_path / "site") as whole:
        assert cut.global_dim == again.global_dim == 3
        require_equal(cut, whole)
        require_equal(again, whole)


def test_places_that_were_forgotten_stay_so(tmp_path: Path):
    with PlaceMap.create(tmp_path / "site", fingerprint=FINGERPRINT) as place_map:
        place_map.add([new_place(number) for number in range(6)], [0, 1, 5, 6, 7, 90])
        place_map.flush()
    shard_map(tmp_path / "site", tmp_path / "cut", 2)
    with open_map(tmp_path / "cut") as cut, open_map(tmp_path / "site") as whole:
        # x is 0 to 5: the first three places and the last three.
        assert [entry.num_places for entry in cut.manifest.shards] == [3, 3]
        assert [place.place_id for place in cut.places()] == [0, 1, 5, 6, 7, 90]
        require_equal(cut, whole)


def test_shards_lie_where_their_places_are(one: Path, tmp_path: Path):
    shard_map(one, tmp_path / "cut", 2)
    left, right = read_manifest(tmp_path / "cut").shards
    # 32 of 40 places have a pose, 16 at each side; the ten of b are placed by their tags, from (0, 0) to 0.009 degrees
    # east, which is 646 m at this latitude, seven of them beyond 100 m.
    assert left.extent_xy[2] <= right.extent_xy[0]
    assert right.extent_xy[2] == pytest.approx(646, abs=2)
    assert right.extent_geo_deg[2:] == pytest.approx((50.0, 8.009))
    assert left.sessions == ("a", "b")
    with open_map(tmp_path / "cut") as sharded:
        assert len(sharded.rows_near((646.0, 0.0), 5.0)) == 1
        assert sharded.loaded == ("00001",)
        assert len(sharded.rows_near((-1000.0, 0.0), 5.0)) == 0
        assert sharded.loaded == ("00001",)


def test_hints_open_near_shards_alone(one: Path, tmp_path: Path):
    shard_map(one, tmp_path / "cut", 4)
    with open_map(tmp_path / "cut") as sharded:
        assert sharded.loaded == ()
        sharded.search(queries()[0], 3, within=sharded.rows_near((646.0, 0.0), 5.0))
        assert len(sharded.loaded) == 1
        sharded.search(queries()[0], 3)
        assert len(sharded.loaded) == 4


def test_shards_are_let_go_beyond_a_bound(one: Path, tmp_path: Path):
    shard_map(one, tmp_path / "cut", 5)
    with open_map(tmp_path / "cut", shard_bytes=0) as none, open_map(one) as whole:
        assert none.search(queries()[0], 5) == whole.search(queries()[0], 5)
        assert none.places() == whole.places()
        assert none.loaded == ()
    # An index of ten places of four floats has 160 bytes and a header of 45; 64 more a place.
    with open_map(tmp_path / "cut", shard_bytes=2 * 845) as two:
        two.search(queries()[0], 3)
        assert len(two.loaded) == 2
        # The last that were used stay.
        two.thumbnail(0), two.thumbnail(1)
        assert set(two.loaded) == {two.shard_of(0)[0].name, two.shard_of(1)[0].name}
    with pytest.raises(MapError, match="-1 bytes; give a number of bytes, 0 or more"):
        open_map(tmp_path / "cut", shard_bytes=-1)


def test_threads_share_shards(one: Path, tmp_path: Path):
    shard_map(one, tmp_path / "cut", 5)
    wrong: list[object] = []
    with open_map(tmp_path / "cut", shard_bytes=1000) as sharded, open_map(one) as whole:
        expected = [whole.search(query, 5) for query in queries()]

        def ask() -> None:
            for query, answer in zip(queries(), expected, strict=True):
                try:
                    if sharded.search(query, 5) != answer:
                        wrong.append("another answer")
                except MapError as error:
                    wrong.append(error)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_properties_belong_to_the_whole(one: Path, tmp_path: Path):
    shard_map(one, tmp_path / "cut", 2)
    with open_map(tmp_path / "cut") as sharded, pytest.raises(MapError, match="open read-only"):
        sharded.set_property("confidence", b"other")
    with open_map(tmp_path / "cut", writable=True) as sharded:
        sharded.set_property("confidence", b"other")
    with open_map(tmp_path / "cut") as sharded:
        assert sharded.get_property("confidence") == b"other"
        assert sharded.check() == []


def test_a_missing_shard_is_named(one: Path, tmp_path: Path):
    shard_map(one, tmp_path / "cut", 3)
    (tmp_path / "cut/shards/00001").rename(tmp_path / "elsewhere")
    with pytest.raises(MapError, match=r"shard 00001 of map .*cut is missing .* restore its folder from a copy"):
        open_map(tmp_path / "cut")


def test_a_changed_shard_is_named(one: Path, tmp_path: Path):
    shard_map(one, tmp_path / "cut", 3)
    with PlaceMap.open(tmp_path / "cut/shards/00002", writable=True) as shard:
        shard.add([new_place(500)])
        shard.flush()
    with pytest.raises(MapFormatError, match=r"shard 00002 of map .*cut was changed: .*map.yaml does not fit"):
        open_map(tmp_path / "cut")


def test_a_damaged_shard_is_named_when_it_is_opened(one: Path, tmp_path: Path):
    shard_map(one, tmp_path / "cut", 3)
    store = tmp_path / "cut/shards/00002/places.sqlite3"
    store.write_bytes(store.read_bytes()[:5000])
    with open_map(tmp_path / "cut") as sharded:
        with pytest.raises(MapError, match=r"shard 00002 of map .*cut: .*places.sqlite3"):
            sharded.search(queries()[0], 3)
        assert any("shard 00002" in line for line in sharded.check())


def test_a_damaged_list_of_shards_is_refused(one: Path, tmp_path: Path):
    shard_map(one, tmp_path / "cut", 3)
    listed = tmp_path / "cut/shards.json"
    before = listed.read_text()
    listed.write_text(before.replace('"num_places": 1', '"num_places": 2'))
    with pytest.raises(MapFormatError, match=r"shards.json does not fit its checksum in map.yaml"):
        open_map(tmp_path / "cut")
    listed.unlink()
    with pytest.raises(MapError, match=r"shards.json cannot be read: No such file"):
        open_map(tmp_path / "cut")


def test_a_path_outside_the_map_is_refused(one: Path, tmp_path: Path):
    from hashlib import sha256

    shard_map(one, tmp_path / "cut", 1)
    listed, manifest = tmp_path / "cut/shards.json", tmp_path / "cut/map.yaml"
    listed.write_text(listed.read_text().replace("shards/00000", "../other"))
    content = yaml.safe_load(manifest.read_text())
    content["checksums"]["shards.json"] = sha256(listed.read_bytes()).hexdigest()
    manifest.write_text(yaml.safe_dump(content))
    with pytest.raises(MapFormatError, match=r"path of a shard is '../other', not a path below the map's folder"):
        open_map(tmp_path / "cut")


def test_shards_must_be_alike(tmp_path: Path):
    def shard(name: str, **options: object) -> str:
        made = {"fingerprint": FINGERPRINT, **options}
        with PlaceMap.create(tmp_path / "all" / "shards" / name, **made) as place_map:  # type: ignore[arg-type]
            place_map.add([new_place(len(name))])
            place_map.flush()
        return f"shards/{name}"

    first = shard("a")
    other = replace(FINGERPRINT, weights_sha256="1" * 64)
    with pytest.raises(ModelMismatchError, match=r"shard .*shards/bb is of another model .* weights"):
        join_shards(tmp_path / "all", [first, shard("bb", fingerprint=other)], [0, 1])
    with pytest.raises(MapError, match=r"shard .*shards/ccc has the frame odom, .*shards/a map; build it again"):
        join_shards(tmp_path / "all", [first, shard("ccc", frame_id="odom")], [0, 1])
    with pytest.raises(MapError, match=r"place 0 is in two shards"):
        join_shards(tmp_path / "all", [first, shard("dddd")], [0, 0])
    assert join_shards(tmp_path / "all", [first, "shards/dddd"], [0, 1]) == 2
    with open_map(tmp_path / "all") as joined:
        assert [(place.place_id, place.stamp_ns) for place in joined.places()] == [(0, 1), (1, 4)]
        assert joined.shard_of(1)[1] == 0
        assert joined.folder_of(1) == (tmp_path / "all/shards/dddd", 0)


def test_what_changes_one_folder_refuses_shards(one: Path, tmp_path: Path):
    shard_map(one, tmp_path / "cut", 2)
    with pytest.raises(MapError, match=r"lies in 2 shards, .* make one with `effovpr map merge NEW_MAP .*cut`"):
        PlaceMap.open(tmp_path / "cut", writable=True)
    with pytest.raises(MapError, match="cut exists already; choose a new folder"):
        shard_map(one, tmp_path / "cut", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut"]


def test_impossible_numbers_of_shards(one: Path, tmp_path: Path):
    for number in (0, -1, 51):
        with pytest.raises(MapError, match=f"{number} shards cannot be made of map .* 50 places; ask for 1 to 50"):
            shard_map(one, tmp_path / "cut", number)
    with pytest.raises(MapError, match=r"3 shards cannot be made of the 2 sessions .* at most 2, or cut it by place"):
        shard_map(one, tmp_path / "cut", 3, "session")
    assert list(tmp_path.iterdir()) == []


def test_sessions_stay_together(tmp_path: Path):
    with PlaceMap.create(tmp_path / "site", fingerprint=FINGERPRINT) as place_map:
        for session, count in (("a", 1), ("b", 6), ("c", 1), ("d", 4)):
            place_map.add([new_place(number, session=session) for number in range(count)])
        place_map.flush()
        # Twelve places in two shards: the middles 0.5, 4, 7.5 and 10 of the sessions fall into the halves a b | c d.
        assert [len(part) for part in cut_places(place_map, 2, "session")] == [7, 5]
        assert [len(part) for part in cut_places(place_map, 4, "session")] == [1, 6, 1, 4]


def test_large_maps_are_searched_by_codes_in_shards_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    with PlaceMap.create(tmp_path / "site", fingerprint=FINGERPRINT) as place_map:
        place_map.add([new_place(number, features=features(rng.normal(size=4))) for number in range(300)])
        place_map.flush()
    monkeypatch.setattr(shard_joining, "flat_limit", lambda dimension: 299)
    monkeypatch.setattr(shard_joining, "FEWEST_CODED", 100)
    shard_map(tmp_path / "site", tmp_path / "cut", 2)
    with open_map(tmp_path / "cut") as cut:
        assert cut.manifest.index.kind == "codes"
        assert cut.check() == []
        assert len(cut.search(queries()[0], 5)) == 5


def test_numbers_are_kept_as_runs():
    # Shard 0 has 0 1 5 6, shard 1 has 2 3 9.
    numbers = ShardNumbers.of_shards([np.array([0, 1, 5, 6]), np.array([2, 3, 9])])
    again = ShardNumbers.from_bytes(numbers.to_bytes(), [4, 3])
    for known in (numbers, again):
        assert known.numbers.tolist() == [0, 1, 2, 3, 5, 6, 9]
        assert [rows.tolist() for rows in known.rows] == [[0, 1, 4, 5], [2, 3, 6]]
        assert [known.shard_of(number) for number in (1, 2, 4, 9, 10)] == [0, 1, None, 1, None]
        # Rows below 3 of the whole: both first rows of shard 0, the first of shard 1.
        assert known.rows_within(0, range(3)) == range(2)
        assert known.rows_within(1, range(3)) == range(1)
        assert known.rows_within(0, range(6)) is None
        assert known.rows_within(0, np.array([1, 3, 5])).tolist() == [1, 3]
    for counts in ([3, 4], [4, 3, 1], [7]):
        with pytest.raises(MapFormatError, match="the numbers of its places do not fit its shards"):
            ShardNumbers.from_bytes(numbers.to_bytes(), counts)
    for data in (None, b"", b"nothing", numbers.to_bytes()[:-8]):
        with pytest.raises(MapFormatError, match="the numbers of its places"):
            ShardNumbers.from_bytes(data, [4, 3])


def test_near_is_by_the_box_of_a_shard():
    entry = ShardEntry("x", "shards/x", "", 0, 1, extent_xy=(0.0, 0.0, 10.0, 20.0))
    assert entry.is_near((5.0, 5.0), 0.0)
    assert entry.is_near((13.0, 24.0), 5.0)
    assert not entry.is_near((13.0, 24.0), 4.9)
    assert not replace(entry, extent_xy=None).is_near((5.0, 5.0), 1e9)
    assert extent_of(np.array([[1.0, 5.0], [np.nan, 0.0], [3.0, 2.0]])) == (1.0, 2.0, 3.0, 5.0)
    assert extent_of(np.full((2, 2), np.nan)) is None
