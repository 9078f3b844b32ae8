"""Folders as evaluation input: positions in one frame, right answers by name, conditions, and what is refused."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic import picture, tiny_weights
from test_evaluation import save

from effovpr_ros.cli.main import main
from effovpr_ros.core.errors import EvaluationError
from effovpr_ros.lab.evaluation.ground_truth import Dataset, from_folders, from_loops
from effovpr_ros.lab.evaluation.positions import headings_rad, positions_xy, turn_deg, within_radius


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_pairs_within_a_radius_worked_by_hand():
    database = np.array([[0.0, 0.0], [3.0, 4.0], [100.0, 0.0]])
    queries = np.array([[0.0, 0.0], [50.0, 0.0], [np.nan, 0.0], [97.0, 4.0]])
    # (3, 4) is exactly 5 m away, and so is (97, 4) from (100, 0).
    assert within_radius(database, queries, 5.0) == [frozenset({0, 1}), frozenset(), frozenset(), frozenset({2})]
    assert within_radius(database[:0], queries, 5.0) == [frozenset()] * 4
    for radius_m in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(EvaluationError, match=rf"radius {radius_m} m is not positive"):
            within_radius(database, queries, radius_m)


def test_many_pairs_need_neither_the_memory_nor_the_time_of_all():
    # All distances of 50,000 by 50,000 points would be 20 GB.
    numbers = np.arange(50_000.0)
    line = np.stack([10.0 * numbers, np.zeros_like(numbers)], axis=1)
    started = time.perf_counter()
    found = within_radius(line, line, 10.5)
    assert time.perf_counter() - started < 20.0
    assert found[0] == {0, 1}
    assert found[-1] == {49_998, 49_999}
    assert found[1234] == {1233, 1234, 1235}


def test_turns_worked_by_hand():
    turns = turn_deg(np.radians([170.0, 10.0, 0.0, np.nan]), np.radians([-170.0, 350.0, 180.0, 0.0]))
    np.testing.assert_allclose(turns, [20.0, 20.0, 180.0, np.nan], atol=1e-9)


def test_names_without_a_zone_come_into_one_frame(tmp_path: Path):
    stored = save(tmp_path / "database", ["@550000.0@4180000.0@.png", "@550100.0@4180000.0@.png"])
    asked = save(tmp_path / "queries", ["@550103.0@4180004.0@@@@@@@90@.png"])
    dataset = from_folders(stored, asked)
    assert positions_xy(dataset.database).tolist() == [[0.0, 0.0], [100.0, 0.0]]
    assert positions_xy(dataset.queries).tolist() == [[103.0, 4.0]]
    assert dataset.positives == [frozenset({1})]
    # Headings are known where a name gives one: 90 degrees from north is along x.
    assert np.isnan(headings_rad(dataset.database)).all()
    assert headings_rad(dataset.queries).tolist() == [0.0]


def test_names_of_two_zones_are_compared_on_the_ground(tmp_path: Path):
    # Either side of 12 degrees east at 50 degrees north: zones 32 and 33, eastings 430 km apart, 3 m on the ground.
    stored = save(tmp_path / "database", ["@714982.8@5542944.0@32@U@.png"])
    asked = save(tmp_path / "queries", ["@285017.2@5542944.0@33@U@.png"])
    dataset = from_folders(stored, asked, radius_m=25.0)
    assert dataset.positives == [frozenset({0})]


def test_folders_with_tables_of_local_metres(tmp_path: Path):
    stored, asked = save(tmp_path / "database", ["a.png", "b.png"]), save(tmp_path / "queries", ["q.png", "r.png"])
    table = write(tmp_path / "d.csv", "image,x,y,yaw_deg", "a.png,0,0,0", "b.png,30,0,90")
    query_table = write(tmp_path / "q.csv", "image,x,y", "q.png,31,0", "r.png,500,0")
    dataset = from_folders(stored, asked, table=table, query_table=query_table, radius_m=2.0)
    assert dataset.positives == [frozenset({1}), frozenset()]
    assert np.isnan(headings_rad(dataset.queries)).all()
    assert headings_rad(dataset.database) == pytest.approx([0.0, np.pi / 2])
    with pytest.raises(EvaluationError, match="--table and --query-table belong together"):
        from_folders(stored, asked, table=table)
    with pytest.raises(EvaluationError, match="give one of them"):
        from_folders(stored, asked, positives=table, table=table, query_table=table)


def test_tables_of_geo_tags_share_the_datum_of_the_database(tmp_path: Path):
    stored, asked = save(tmp_path / "database", ["a.png"]), save(tmp_path / "queries", ["q.png"])
    table = write(tmp_path / "d.csv", "image,latitude,longitude", "a.png,50.0,8.0")
    near = write(tmp_path / "q.csv", "image,latitude,longitude", "q.png,50.0001,8.0")
    dataset = from_folders(stored, asked, table=table, query_table=near)
    assert dataset.positives == [frozenset({0})]
    # A ten-thousandth of a degree of latitude is 11.1 m.
    assert positions_xy(dataset.queries)[0] == pytest.approx([0.0, 11.12], abs=0.01)
    swapped = write(tmp_path / "s.csv", "image,latitude,longitude", "q.png,8.0,50.0001")
    with pytest.raises(EvaluationError, match="with latitude and longitude swapped 1 would: they are swapped in one"):
        from_folders(stored, asked, table=table, query_table=swapped)
    local = write(tmp_path / "l.csv", "image,x,y", "q.png,0,0")
    with pytest.raises(EvaluationError, match=r"q\.png has a position in local metres only, while the database is geo"):
        from_folders(stored, asked, table=table, query_table=local)
    with pytest.raises(EvaluationError, match="no frame in common"):
        from_folders(asked, stored, table=local, query_table=table)


def test_latitudes_beyond_the_pole_are_said(tmp_path: Path):
    stored = save(tmp_path / "database", ["a.png"])
    table = write(tmp_path / "d.csv", "image,latitude,longitude", "a.png,122.4,37.7")
    with pytest.raises(EvaluationError, match=r"no image can be used \(1 refused as csv.*are the columns swapped\?"):
        from_folders(stored, stored, table=table, query_table=table)


def test_a_table_that_names_missing_images_is_refused(tmp_path: Path):
    stored = save(tmp_path / "database", ["a.png"])
    table = write(tmp_path / "d.csv", "image,x,y", "a.png,0,0", "b.png,1,0", "c.png,2,0")
    with pytest.raises(EvaluationError, match=r"names 2 images that .*database does not have, the first in .*b\.png"):
        from_folders(stored, stored, table=table, query_table=table)


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ("@550000.0@4180000.0@{}.png", "@4180003.0@550000.0@{}.png"),
        ("@4180000.0@550000.0@{}.png", "@4180000.0@550000.0@{}.png"),
    ],
)
def test_swapped_utm_is_said(tmp_path: Path, stored: str, asked: str):
    database, queries = save(tmp_path / "d", [stored.format("a")]), save(tmp_path / "q", [asked.format("b")])
    with pytest.raises(EvaluationError, match=r"easting of 41800.* look swapped in 1 of 1 names"):
        from_folders(database, queries)


def test_swapped_local_metres_are_found_by_what_they_would_give(tmp_path: Path):
    stored = save(tmp_path / "database", ["@1000.0@200.0@.png"])
    asked = save(tmp_path / "queries", ["@201.0@1000.0@.png"])
    with pytest.raises(EvaluationError, match="no query has a positive; with easting and northing swapped 1 would"):
        from_folders(stored, asked)


def test_degrees_in_some_names_are_said(tmp_path: Path):
    stored = save(tmp_path / "database", ["@550000.0@4180000.0@.png", "@8.68@50.1@.png"])
    with pytest.raises(EvaluationError, match=r"@8\.68@50\.1@\.png: 1 of 2 names hold degrees .*--table"):
        from_folders(stored, stored)
    # A drive of 300 m in local metres starts near the origin and is not taken for degrees.
    local = save(tmp_path / "local", ["@0.0@0.0@.png", "@300.0@10.0@.png"])
    assert from_folders(local, local).positives == [frozenset({0}), frozenset({1})]


def test_degrees_in_a_table_make_every_answer_right_which_is_noted(tmp_path: Path):
    stored = save(tmp_path / "database", ["a.png", "b.png"])
    table = write(tmp_path / "d.csv", "image,x,y", "a.png,8.68,50.1", "b.png,8.69,50.2")
    dataset = from_folders(stored, stored, table=table, query_table=table)
    assert "every database image is within 25 m of every query" in dataset.notes[0]


def test_images_that_cannot_be_placed_are_noted(tmp_path: Path):
    stored = save(tmp_path / "database", ["@550000.0@4180000.0@.png", "plain.png"])
    dataset = from_folders(stored, stored)
    assert len(dataset.queries) == 1
    assert [note.split(": ")[1] for note in dataset.notes] == ["1 images left out, the first"] * 2


def test_names_in_sub_folders_are_told_apart(tmp_path: Path):
    for season in ("summer", "winter"):
        save(tmp_path / "database" / season, ["a.png", "b.png"])
    asked = save(tmp_path / "queries", ["q.png"])
    table = write(tmp_path / "p.csv", "query,database", "q.png,winter/a.png", "q.png,database/summer/b.png")
    # In natural order: summer/a, summer/b, winter/a, winter/b.
    assert from_folders(tmp_path / "database", asked, positives=table).positives == [frozenset({1, 2})]
    write(table, "query,database", "q.png,a.png")
    with pytest.raises(EvaluationError, match=r"line 2: two images are named a\.png in the database \(summer/a\.png"):
        from_folders(tmp_path / "database", asked, positives=table)
    write(table, "query,database", "q.png,spring/a.png")
    with pytest.raises(EvaluationError, match=r"spring/a\.png is not among the images of the database"):
        from_folders(tmp_path / "database", asked, positives=table)
    # Two images of one name are no harm where no row asks for them.
    write(table, "query,database", "q.png,summer/b.png")
    assert from_folders(tmp_path / "database", asked, positives=table).positives == [frozenset({1})]


def test_no_right_answer_in_a_table(tmp_path: Path):
    stored = save(tmp_path / "database", ["a.png"])
    table = write(tmp_path / "p.csv", "query,database")
    with pytest.raises(EvaluationError, match=r"no query has a positive; .*p\.csv names no right answer; add rows"):
        from_folders(stored, stored, positives=table)
    frames = save(tmp_path / "drive", ["1.png", "2.png"])
    write(table, "image,earlier", "2.png,1.png")
    with pytest.raises(EvaluationError, match="names no image at least 5 frames earlier; lower --min-gap"):
        from_loops(frames, table, min_gap=5)


def test_conditions_by_folder_and_by_column(tmp_path: Path):
    stored = save(tmp_path / "database", ["a.png"])
    save(tmp_path / "queries" / "night", ["q.png"])
    save(tmp_path / "queries" / "rain", ["r.png"])
    table = write(tmp_path / "p.csv", "query,database", "q.png,a.png")
    assert from_folders(stored, tmp_path / "queries", positives=table).conditions == ("night", "rain")
    write(table, "query,database,note,condition", "q.png,a.png,,dusk")
    assert from_folders(stored, tmp_path / "queries", positives=table).conditions == ("dusk", "")
    write(table, "query,database,session", "q.png,a.png,one", "q.png,a.png,two")
    with pytest.raises(EvaluationError, match=r"q\.png has the session 'two', and 'one' above"):
        from_folders(stored, tmp_path / "queries", positives=table)
    assert from_folders(stored, stored, positives=write(table, "q,d", "a.png,a.png")).conditions == ()
    # One sub-folder of all images divides nothing.
    save(tmp_path / "plain" / "images", ["a.png"])
    assert from_folders(stored, tmp_path / "plain", positives=table).conditions == ()


def test_a_data_set_of_unequal_parts_is_refused(tmp_path: Path):
    frames = from_folders(*[save(tmp_path / "d", ["@0.0@0.0@.png", "@900.0@0.0@.png"])] * 2).queries
    with pytest.raises(EvaluationError, match="2 queries, but 1 positives"):
        Dataset("set", frames, frames, [frozenset({0})], [range(2)] * 2)


def test_errors_and_strata_of_the_command_worked_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    database, queries = tmp_path / "set" / "database", tmp_path / "set" / "queries"
    # Places 100 m apart; by day each query is 3 m and 4 m off, by night 6 m and 8 m, the last shows nothing mapped.
    rows, query_rows = ["image,x,y,yaw_deg"], ["image,x,y,yaw_deg"]
    for number in range(4):
        save(database, [f"{number}.png"], first=number)
        rows.append(f"{number}.png,{100 * number},0,0")
        name = f"{'day' if number < 2 else 'night'}/{number}.png"
        save(queries / Path(name).parent, [Path(name).name], first=number)
        x, y = (3, 4) if number < 2 else (6, 8)
        query_rows.append(f"{name},{100 * number + x},{y},{350 if number < 2 else 20}")
    save(queries / "night", ["9.png"], first=60)
    query_rows.append("night/9.png,5000,0,0")
    tables = [write(tmp_path / "d.csv", *rows), write(tmp_path / "q.csv", *query_rows)]
    model = ["--model", "vit_tiny_test_patch14", "--weights", str(tiny_weights(tmp_path)), "--size", "56", "--t1", "0"]
    arguments = ["evaluate", "folders", str(database), str(queries), "--table", str(tables[0])]
    arguments += [
        "--query-table",
        str(tables[1]),
        "--methods",
        "effovpr",
        "never:match_confidence=1.0",
        "always:match_confidence=1e-14,min_confidence=0",
    ]
    assert main([*arguments, "--json", *model]) == 0
    result = json.loads(capsys.readouterr().out)
    method, never, always = (result["methods"][name] for name in ("effovpr", "never", "always"))
    assert method["recall"]["1"] == 1.0
    assert method["by_condition"] == {
        "day": {"queries_with_positives": 2, "recall_at_1": 1.0},
        "night": {"queries_with_positives": 2, "recall_at_1": 1.0},
    }
    # The four right answers are 5, 5, 10 and 10 m off and turned by 10, 10, 20 and 20 degrees.
    far = method["position_error_m_all_answers"]
    assert far["count"] == 5
    assert far["max"] > 4000.0
    assert far["p50"] == pytest.approx(10.0)
    assert method["heading_error_deg_all_answers"]["max"] == pytest.approx(20.0)
    assert method["heading_error_deg_all_answers"]["p50"] == pytest.approx(10.0)
    assert method["outside"]["queries"] == 1
    assert never["outside"] == {"queries": 1, "matches": 0}
    assert never["position_error_m"] is None
    assert never["position_error_m_all_answers"] == far
    assert always["outside"] == {"queries": 1, "matches": 1}
    assert always["position_error_m"] == far
    assert main([*arguments, *model]) == 0
    printed = capsys.readouterr().out
    assert "effovpr: night: R@1 100.0 of 2 with a positive" in printed
    assert "never: 1 queries without a positive, 0 of them falsely a MATCH" in printed
    assert "never: position error" not in printed


def test_pictures_without_poses_have_no_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    stored = save(tmp_path / "database", ["a.png", "b.png"])
    Image.fromarray(picture(5)).save(stored / "c.png")
    table = write(tmp_path / "p.csv", "query,database", "a.png,a.png")
    model = ["--model", "vit_tiny_test_patch14", "--weights", str(tiny_weights(tmp_path)), "--size", "56", "--t1", "0"]
    assert main(["evaluate", "folders", str(stored), str(stored), "--positives", str(table), "--json", *model]) == 0
    method = json.loads(capsys.readouterr().out)["methods"]["global"]
    for key in ("position_error_m", "position_error_m_all_answers", "heading_error_deg", "by_condition"):
        assert method[key] is None
