"""The report: what became of each query, what the gallery shows, and the page in a real browser."""

from __future__ import annotations

import dataclasses
import html
import json
import math
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from synthetic import FINGERPRINT, features, picture, tiny_weights

from effovpr_ros.cli.evaluate_table import summary_table
from effovpr_ros.cli.main import main
from effovpr_ros.core.poses import Pose
from effovpr_ros.geometry.measured_pose import PoseMeasurement, PoseOutcome
from effovpr_ros.geometry.points import Points
from effovpr_ros.geometry.verified_matches import VerifiedMatches
from effovpr_ros.lab.evaluation.gallery import choose, draw_entry
from effovpr_ros.lab.evaluation.ground_truth import Dataset
from effovpr_ros.lab.evaluation.method import Answer, Query
from effovpr_ros.lab.evaluation.metrics import precision_recall, reliability
from effovpr_ros.lab.evaluation.outcomes import Outcome, judge
from effovpr_ros.lab.evaluation.plots import map_plot, precision_recall_plot, reliability_plot
from effovpr_ros.lab.evaluation.report import render_report
from effovpr_ros.lab.evaluation.runner import MethodResult, Run
from effovpr_ros.lab.evaluation.saved_run import load_run
from effovpr_ros.lab.evaluation.summary import summarise
from effovpr_ros.lab.evaluation.third_stage_figures import measured_figures, verified_figures
from effovpr_ros.mapping.place import Candidate, Place
from effovpr_ros.recognition.recognizer import Latency, Recognition, Status
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.recognition.third_stage import Verified, VerifiedCandidate
from effovpr_ros.sources.frame import Frame

LATENCY = Latency(10.0, 1.0, 5.0, 0.1, 16.1)
CELLS = np.array([[0, 0], [1, 1]], np.uint8)
CODES = np.zeros((3, 64), np.int8)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def frame(name: str, number: int, x: float, y: float, *, posed: bool) -> Frame:
    pose = Pose.from_yaw(x, y, 0.0) if posed else None
    return Frame(name, "s", 0, pose, None, partial(picture, number))


def dataset(*, posed: bool = True) -> Dataset:
    """Six places 20 m apart; each query was taken 5 m from the place of its number, the last three elsewhere."""
    database = [frame(f"place_{n}.png", n, 20.0 * n, 0.0, posed=posed) for n in range(6)]
    queries = [frame(f"query_{n}.png", n, 20.0 * n + 3.0, 4.0, posed=posed) for n in range(8)]
    positives = [frozenset({n}) if n < 5 else frozenset() for n in range(8)]
    return Dataset("set/queries", database, queries, positives, [range(6)] * 7 + [range(0)])


def answer(status: Status, confidence: float, ranked: Sequence[int], similarities: Sequence[float]) -> Answer:
    """Candidates in the order of re-ranking, with the similarities of the first stage."""
    candidates = tuple(
        Candidate(Place(number, "s", 0, f"{number}", None, None, (96, 72)), similarity)
        for number, similarity in zip(ranked, similarities, strict=True)
    )
    known = Recognition(
        status, confidence, candidates, None, None, None, 0.0, LATENCY, "why & how", features([1.0] * 4)
    )
    return Answer(ranked, confidence, status, LATENCY, known)


ANSWERS = (
    answer(Status.MATCH, 0.9, [0, 1], [0.9, 0.8]),
    answer(Status.AMBIGUOUS, 0.4, [1, 2], [0.8, 0.9]),
    answer(Status.MATCH, 0.7, [3, 2], [0.8, 0.9]),
    answer(Status.MATCH, 0.8, [4, 5], [0.9, 0.9]),
    answer(Status.AMBIGUOUS, 0.3, [0, 1, 4], [0.9, 0.8, 0.7]),
    answer(Status.NO_MATCH, 0.1, [2], [0.5]),
    answer(Status.MATCH, 0.95, [2], [0.9]),
    answer(Status.NO_MATCH, 0.0, [], []),
)


class PatchMethod:
    """Says that the same two patches match in any pair."""

    bytes_per_place = 1000.0
    calibrated = False

    def answer(self, query: Query) -> Answer:
        raise NotImplementedError

    def matched_cells(self, query: Query, place_id: int) -> tuple[np.ndarray, np.ndarray]:
        return CELLS, CELLS


class PlainMethod:
    """Knows no patches."""

    bytes_per_place = 48.0
    calibrated = True

    def answer(self, query: Query) -> Answer:
        raise NotImplementedError


def run(*, posed: bool = True, calibrated: bool = True) -> Run:
    data = dataset(posed=posed)
    queries = tuple(Query(item, features([1.0, 0.0, 0.0, 0.0]), 10.0) for item in data.queries)
    plain = [Answer(item.ranked, item.confidence, None, LATENCY) for item in ANSWERS]
    return Run(
        dataset=data,
        queries=queries,
        methods={"effovpr": PatchMethod(), "<i>bow</i>": PlainMethod()},
        results={
            "effovpr": MethodResult(ANSWERS, 1000.0, False),
            "<i>bow</i>": MethodResult(plain, 48.0, calibrated),
        },
        settings={"effovpr": RecognizerConfig(top_k=7)},
        fingerprint=FINGERPRINT,
        command="effovpr evaluate folders 'my <database>' queries",
    )


def test_what_became_of_each_query():
    outcomes = judge(dataset(), ANSWERS)
    assert [item.outcome for item in outcomes] == [
        Outcome.RIGHT,
        Outcome.RIGHT_UNSURE,
        Outcome.FALSE_MATCH,
        Outcome.FALSE_MATCH,
        Outcome.WRONG_UNSURE,
        Outcome.REFUSED,
        Outcome.FALSE_MATCH,
        Outcome.REFUSED,
    ]
    # Equal similarities of query 3: the smaller number, as the index orders them.
    assert [item.first_stage for item in outcomes] == [0, 2, 2, 4, 0, 2, 2, None]
    assert [item.first_stage_right for item in outcomes] == [True, False, True, False, False, False, False, None]
    # hypot(3, 4); query 2 lies at x = 43 and its place at 60; nothing was answered to query 7.
    assert outcomes[0].position_error_m == pytest.approx(5.0)
    assert outcomes[2].position_error_m == pytest.approx(np.hypot(17.0, 4.0))
    assert outcomes[7].position_error_m is None
    assert {item.position_error_m for item in judge(dataset(posed=False), ANSWERS)} == {None}


def test_a_method_that_never_refuses_has_only_right_answers_and_false_matches():
    outcomes = judge(dataset(), run().results["<i>bow</i>"].answers)
    assert [item.outcome for item in outcomes[:3]] == [Outcome.RIGHT, Outcome.RIGHT, Outcome.FALSE_MATCH]
    assert {item.first_stage_right for item in outcomes} == {None}


def test_the_gallery_shows_the_most_confident_failures_first():
    outcomes = judge(dataset(), ANSWERS)
    chosen = {section.title: [item.query for item in section.shown] for section in choose(outcomes)}
    assert chosen == {"Failures": [6, 3, 4], "Rescues": [1], "The reverse": [2], "Successes": [0]}
    failures = choose(outcomes, most=2)[0]
    assert (failures.total, [item.query for item in failures.shown]) == (3, [6, 3])


def test_entries_show_the_answer_and_what_it_should_have_been():
    given, outcomes = run(), judge(dataset(), ANSWERS)
    entries = [
        draw_entry(given.dataset, given.queries[n], ANSWERS[n], outcomes[n], given.methods["effovpr"]) for n in range(7)
    ]
    captions = [[picture.caption for picture in entry.pictures] for entry in entries]
    matched = "2 matched patches"
    assert captions[0] == [f"Answered with place_0.png (place 0), 5.0 m away, {matched}"]
    assert captions[1][1].startswith("First by global similarity was place_2.png (place 2)")
    assert captions[2][1] == f"At rank 2 lies the right place_2.png (place 2), 5.0 m away, {matched}"
    assert captions[3][1].startswith("Not among the candidates is the right place_3.png")
    assert captions[4][1].startswith("At rank 3 lies the right place_4.png")
    assert (len(captions[6]), entries[6].remark) == (1, "No database image shows this place.")
    assert entries[2].verdict == "false match: MATCH, confidence 0.70"
    plain = draw_entry(given.dataset, given.queries[0], ANSWERS[0], outcomes[0], PlainMethod())
    assert plain.pictures[0].caption == "Answered with place_0.png (place 0), 5.0 m away"
    assert plain.pictures[0].source != entries[0].pictures[0].source, "patches are drawn into the picture"


def test_the_gallery_draws_verified_points_where_the_third_stage_looked():
    """Two of three matches agree: two points are told of, whatever the method says of patches."""
    given = run()
    points = Points("xfeat", np.array([[10.0, 10.0], [50.0, 40.0], [70.0, 20.0]], np.float32), CODES, (96, 72))
    index = np.arange(3)
    matches = VerifiedMatches(index, index, points.keypoints_xy, points.keypoints_xy, np.ones(3), index < 2)
    known = replace(ANSWERS[1].recognition, verified=Verified(points, (VerifiedCandidate(1, points, matches),)))
    seen = replace(ANSWERS[1], recognition=known)
    outcome = judge(given.dataset, ANSWERS)[1]
    entry = draw_entry(given.dataset, given.queries[1], seen, outcome, given.methods["effovpr"])
    assert "place_1.png (place 1), 5.0 m away, 2 verified points" in entry.pictures[0].caption
    # The first stage's place was not looked at.
    assert "matched patches" in entry.pictures[1].caption


def test_the_summary_says_where_the_third_stage_ran():
    """Two of four answers, 20 and 40 ms: a share of a half, 30 ms at the median; none of them without it."""
    took = [0.0, 20.0, 0.0, 40.0]
    answers = [replace(ANSWERS[n], latency_ms=replace(LATENCY, verify=spent_ms)) for n, spent_ms in enumerate(took)]
    given = dataset()
    few = replace(given, queries=given.queries[:4], positives=given.positives[:4], allowed=given.allowed[:4])
    found = {name: MethodResult(chosen, None, False) for name, chosen in (("a", answers), ("b", ANSWERS[:4]))}
    methods = summarise(few, found)["methods"]
    # Queries 0 and 1 are answered right; by two stages, whose scores are equal here, similarity has 0 and 2 right.
    assert methods["a"]["verified"] == pytest.approx(
        {"share": 0.5, "p50_ms": 30.0, "p95_ms": 39.0, "recall_at_1_before": 0.5, "recall_at_1": 0.5}
    )
    assert methods["b"]["verified"] is None
    table = summary_table(summarise(few, found))
    assert "a: third stage at 50 % of the queries, median / p95 there: 30.0 / 39.0 ms" in table
    assert "a: R@1 of two stages 50.0, of three 50.0" in table
    assert "b: third stage" not in table


def test_the_order_before_the_third_stage_is_that_of_the_score():
    """Place 2 has the greater score and was put second by the points: two stages answer wrong, three right."""
    known = ANSWERS[1].recognition
    assert known is not None
    first, second = (replace(item, score=score) for item, score in zip(known.candidates, (3.0, 4.0), strict=True))
    seen = replace(ANSWERS[1], recognition=replace(known, candidates=(first, second)))
    seen = replace(seen, latency_ms=replace(LATENCY, verify=20.0))
    given = dataset()
    one = replace(given, queries=given.queries[1:2], positives=given.positives[1:2], allowed=given.allowed[1:2])
    figures = verified_figures(one, [seen])
    assert figures is not None
    assert (figures.recall_at_1_before, figures.recall_at_1) == (0.0, 1.0)


def test_measured_poses_stand_beside_the_matched_pictures():
    """Query 0 was taken at (3, 4); its place is at (0, 0), the measured pose at (3.03, 4.04), 2 degrees off.

    One of three MATCHes is measured. Squared error over covariance: (0.05 / 0.02)^2 + (0.0349 / 0.02)^2 = 9.3.
    """
    pose = Pose.from_yaw(3.03, 4.04, math.radians(2.0))
    measurement = PoseMeasurement(PoseOutcome.MEASURED, "by hand", pose, np.eye(6) * 0.02**2, 50, 3)
    none = PoseMeasurement(PoseOutcome.NO_CAMERA, "no calibration")

    def measured(number: int, what: PoseMeasurement) -> Answer:
        known = ANSWERS[number].recognition
        assert known is not None
        return replace(ANSWERS[number], recognition=replace(known, measurement=what))

    answers = [measured(0, measurement), ANSWERS[1], measured(2, none), measured(3, none)]
    given = dataset()
    few = replace(given, queries=given.queries[:4], positives=given.positives[:4], allowed=given.allowed[:4])
    figures = measured_figures(few, answers)
    assert figures is not None
    assert figures.share_of_matches == pytest.approx(1.0 / 3.0)
    assert asdict(figures.position_error_m) == pytest.approx({"p50": 0.05, "p95": 0.05, "max": 0.05, "count": 1})
    assert figures.heading_error_deg.p50 == pytest.approx(2.0)
    assert figures.prior_position_error_m.p50 == pytest.approx(5.0)
    assert figures.prior_heading_error_deg.p50 == pytest.approx(0.0)
    assert figures.foretold_std_m == pytest.approx(0.02 * 3**0.5)
    assert figures.inside_99 == 1.0
    assert figures.reasons == {"measured": 1, "no calibration": 2}
    tight = replace(measurement, covariance=np.eye(6) * 0.01**2)
    assert measured_figures(few, [measured(0, tight), *answers[1:]]).inside_99 == 0.0
    assert measured_figures(few, ANSWERS[:4]) is None
    summary = summarise(few, {"a": MethodResult(answers, None, False)})
    table = summary_table(summary)
    assert "a: pose measured of 33 % of the MATCHes; foretold standard deviation 0.035 m; 100 % inside 99 %" in table
    assert "a: measured position error, median / p95: 0.050 / 0.050 m (the matched pictures': 5.000 / 5.000 m)" in table
    assert "a: measured heading error, median / p95: 2.00 / 2.00 deg (the matched pictures': 0.00 / 0.00 deg)" in table
    page = render_report(Run(few, {"a": MethodResult(answers, None, False)}, "effovpr evaluate"), summary)
    assert "The third stage of a" in page
    assert "pose measured of 33 % of the MATCHes" in page


def test_plots_follow_the_theme_and_share_no_ids():
    curve = precision_recall([0.9, 0.5], [True, False], 2)
    plots = [
        precision_recall_plot({"a $x$ method": curve}),
        reliability_plot("b", reliability([0.2, 0.9], [False, True])),
    ]
    identifiers = [re.findall(r'\bid="([^"]+)"', plot.svg) for plot in plots]
    assert all(identifiers)
    assert not set(identifiers[0]) & set(identifiers[1])
    for plot, own in zip(plots, identifiers, strict=True):
        assert set(re.findall(r'(?:href="|url\()#([^")]+)', plot.svg)) <= set(own)
        assert "var(--series-1)" in plot.svg
        assert not re.search(r"(?:fill|stroke): #", plot.svg), "a colour that does not follow the theme"
    assert "a $x$ method" in plots[0].svg
    assert "a $x$ method 0.500" in plots[0].alt
    assert "expected calibration error 0.150" in plots[1].alt


def test_a_map_of_large_coordinates_names_their_origin():
    stored_xy, asked_xy = np.array([[550010.0, 4180020.0], [550090.0, 4180020.0]]), np.array([[550013.0, 4180024.0]])
    svg = map_plot("a", stored_xy, {Outcome.RIGHT: asked_xy}, []).svg
    assert "x, east of 550000 [m]" in svg
    assert "y, north of 4180000 [m]" in svg


def page_of(given: Run) -> str:
    return render_report(given, summarise(given.dataset, given.results))


def test_the_page_has_every_section_and_escapes_names():
    page = page_of(run())
    assert page.startswith("<!DOCTYPE html>")
    assert "<i>bow" not in page
    assert "&lt;i&gt;bow&lt;/i&gt;" in page
    assert "my &lt;database&gt;" in page
    assert "why &amp; how" in page
    for heading in ("Precision and recall", "Position errors", "The map from above: effovpr", "Rescues", "The reverse"):
        assert f"{heading}" in page, heading
    assert "Reliability of" in page
    assert "left out: no method" not in page
    assert "Other than the default: top_k = 7." in page
    assert page.count("Settings are left out: this method has none") == 1
    # Precision, recall, reliability, errors, two maps. Two pictures for what was wrong or rescued and has a positive:
    # queries 1 to 4 of effovpr and 2 to 4 of the other method, which has no rescues; one for the other answers.
    assert page.count("<svg") == page.count('role="img"') == 6
    assert page.count('src="data:image/webp;base64,') == page.count("<img") == (4 * 2 + 2) + (3 * 2 + 4)
    assert not re.search(r"""(?:src|href)=["'](?!#|data:)|@import|url\((?!#)""", page), "something outside the page"
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", page))
    themes = [set(re.findall(r"(--[a-z0-9-]+): #", block)) for block in re.findall(r":root \{(.*?)\}", page, re.DOTALL)]
    assert themes[0] == themes[1]
    assert used <= themes[0] | {"--colour"}


def test_recorded_answers_have_neither_pictures_nor_a_guess():
    data = dataclasses.replace(dataset(), database_known=False, notes=["the <map> is not known"])
    page = page_of(Run(data, {"live": MethodResult(ANSWERS, None, False)}, "effovpr evaluate live bag"))
    assert "Pictures are left out: the answers were recorded" in page
    assert "The model is left out" in page
    assert "<b>unknown</b>database images" in page
    assert "the &lt;map&gt; is not known" in page
    assert "a guess" not in page
    assert "<img" not in page
    # Precision, recall, errors and the map.
    assert page.count("<svg") == 4
    assert "a guess" in page_of(run())


def test_recall_is_shown_by_condition_where_the_data_name_some():
    given = run()
    by_night = dataclasses.replace(given.dataset, conditions=["day"] * 3 + ["night & fog"] * 2 + ["rain"] * 3)
    page = page_of(dataclasses.replace(given, dataset=by_night))
    table = page[page.index("R@1 by condition") : page.index("What became of the queries")]
    assert re.findall(r"<th scope=\"col\">([^<]+)<br><small>(\d)", table) == [
        ("day", "3"),
        ("night &amp; fog", "2"),
        ("rain", "0"),
    ]
    # Two of the three queries by day, none of the two by night; those in the rain have no positive.
    assert re.findall(r"<td>([^<]+)</td>", table) == ["66.7", "0.0", "\N{EN DASH}"] * 2
    assert "R@1 by condition" not in page_of(given)


def test_the_calibration_error_is_of_answered_queries_of_calibrated_methods():
    methods = summarise(run().dataset, run().results)["methods"]
    assert methods["effovpr"]["calibration_error"] is None
    # Bins: 0.95 and 0.9, one of two right; 0.4 right; 0.7, 0.8, 0.3 and 0.1 wrong. Query 7 has no answer.
    worked = (2 * (0.925 - 0.5) + (1.0 - 0.4) + 0.7 + 0.8 + 0.3 + 0.1) / 7
    assert methods["<i>bow</i>"]["calibration_error"] == pytest.approx(worked)


def test_sections_without_data_say_why():
    page = page_of(run(posed=False, calibrated=False))
    assert "Reliability is left out: no method of this run gives calibrated confidences." in page
    assert "Position errors and the map from above are left out" in page
    assert "Reliability of" not in page
    assert 'id="map"' not in page
    assert "calibration<br>error" not in page
    assert "Rescues and their reverse are left out: no second stage changed a first candidate." in page
    assert page.count("<svg") == 2


PROBE = """<!DOCTYPE html><iframe id="frame" style="width:WIDTHpx;height:900px;border:0"></iframe><pre id="probe"></pre>
<script>
frame.onload = async () => {
  const page = frame.contentDocument, view = frame.contentWindow;
  page.querySelectorAll("details").forEach((item) => { item.open = true; });
  page.querySelectorAll("img").forEach((item) => { item.loading = "eager"; });
  while (![...page.images].every((item) => item.complete)) await new Promise((done) => setTimeout(done, 50));
  const sticksOut = (item) => item.getBoundingClientRect().right > view.innerWidth + 1;
  const isDrawn = (item) => item.getBoundingClientRect().width > 100 && item.getBoundingClientRect().height > 100;
  probe.textContent = JSON.stringify({
    width: view.innerWidth,
    scrollWidth: page.documentElement.scrollWidth,
    sticking: [...page.querySelectorAll("body *")].filter((item) => sticksOut(item) && !item.closest(".box"))
      .map((item) => item.outerHTML.slice(0, 80)),
    images: [...page.images].filter((item) => item.naturalWidth > 0 && isDrawn(item)).length,
    plots: [...page.querySelectorAll("svg")].filter(isDrawn).length,
    loaded: view.performance.getEntriesByType("resource").map((item) => item.name)
      .filter((name) => !name.startsWith("data:")),
  });
};
frame.src = "report.html";
</script>
"""


def probe(folder: Path, width: int) -> dict[str, Any]:
    """Lay out folder/report.html at a width; a frame, since a window has a least width that phones go below."""
    if CHROMIUM is None:
        pytest.skip("no chromium here; apt-get install chromium")
    (folder / "probe.html").write_text(PROBE.replace("WIDTH", str(width)))
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--allow-file-access-from-files"]
    sizes = ["--window-size=1400,1000", "--virtual-time-budget=20000", f"--user-data-dir={folder / 'profile'}"]
    command = [CHROMIUM, *options, *sizes, "--dump-dom", (folder / "probe.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    found = re.search(r'<pre id="probe">(\{.*?\})</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr
    result: dict[str, Any] = json.loads(html.unescape(found.group(1)))
    return result


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_a_browser_and_shows_everything(tmp_path: Path, width: int):
    page = page_of(run())
    (tmp_path / "report.html").write_text(page)
    seen = probe(tmp_path, width)
    assert seen["width"] == width
    assert seen["sticking"] == []
    assert seen["scrollWidth"] <= width
    assert seen["images"] == page.count("<img")
    assert seen["plots"] == page.count("<svg")
    assert seen["loaded"] == []


def test_the_probe_sees_what_sticks_out(tmp_path: Path):
    (tmp_path / "report.html").write_text('<!DOCTYPE html><body><div style="width:700px">wide</div></body>')
    seen = probe(tmp_path, 390)
    assert seen["scrollWidth"] > 390
    assert len(seen["sticking"]) == 1


def test_the_command_writes_a_report_of_real_answers(tmp_path: Path):
    folders = tmp_path / "database", tmp_path / "queries"
    for folder, east in zip(folders, (550000, 550005), strict=True):
        folder.mkdir()
        for number in range(4):
            Image.fromarray(picture(number)).save(folder / f"@{east + 100 * number}.0@4180000.0@.png")
    model = [
        "--model",
        "vit_tiny_test_patch14",
        "--weights",
        str(tiny_weights(tmp_path)),
        "--size",
        "56",
        "--t1",
        "0.0",
    ]
    out = tmp_path / "out"
    assert main(["evaluate", "folders", *map(str, folders), "--out", str(out), *model]) == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert f"effovpr evaluate folders {folders[0]}" in html.unescape(page)
    assert "5.0 m away, 16 matched patches" in page
    assert "x, east [m]" in page
    assert "vit_tiny_test_patch14" in page
    assert set(load_run(out).answers) == {"effovpr", "global"}
