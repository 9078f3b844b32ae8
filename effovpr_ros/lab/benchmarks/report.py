"""All figures of a run, as one object and as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

from effovpr_ros.features.extractor_config import ModelFingerprint
from effovpr_ros.lab.benchmarks.accuracy import AccuracyFigures
from effovpr_ros.lab.benchmarks.machine import Machine
from effovpr_ros.lab.benchmarks.map_size import MapFigures
from effovpr_ros.lab.benchmarks.network import NetworkFigures
from effovpr_ros.lab.benchmarks.node import NodeFigures
from effovpr_ros.lab.benchmarks.query import QueryFigures, RerankFigures
from effovpr_ros.lab.benchmarks.search import SearchFigures

FORMAT = 1
"""Version of the JSON object, which the reference describes."""


@dataclass(frozen=True)
class Report:
    """Everything that a run measured; parts that were not asked for, or not possible, are None or empty.

    Attributes:
        format: version of the object; it changes when a field changes its meaning.
        command: as typed.
        started: ISO 8601, UTC.
        seconds: that the run took.
        machine: where.
        model: fingerprint of the features.
        notes: what was left out, and why.
        network: engines.
        search: by size and dimension.
        map: a large one.
        query: stages on it.
        rerank: by K on it.
        node: over DDS on it.
        accuracy: on data sets.
    """

    format: int = field(default=FORMAT, kw_only=True)
    command: str
    started: str
    seconds: float
    machine: Machine
    model: ModelFingerprint
    notes: Sequence[str] = ()
    network: NetworkFigures | None = None
    search: Sequence[SearchFigures] = ()
    map: MapFigures | None = None
    query: QueryFigures | None = None
    rerank: Sequence[RerankFigures] = ()
    node: NodeFigures | None = None
    accuracy: Sequence[AccuracyFigures] = ()

    def __str__(self) -> str:
        """Tables in Markdown. Times are medians in ms with the tenth and the ninetieth percentile."""
        return "\n".join(_lines(self))


def _lines(report: Report) -> Iterator[str]:
    machine = report.machine
    yield f"{report.command}: {report.started}, {report.seconds:.0f} s"
    gpu = f", {machine.gpu}" if machine.gpu else ", no GPU"
    yield f"{machine.processor}, {machine.cores} cores, {machine.threads} threads, {machine.memory_gib} GiB{gpu}"
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    yield f"{machine.system}, Python {machine.python}, {versions}; load before the run {machine.load}"
    limits = "".join(f", held back by {name}={value}" for name, value in machine.held_back.items())
    yield f"instructions of PyTorch's kernels: {machine.instructions}, of re-ranking: {machine.reranking}{limits}"
    yield "Times in ms: median (10 % to 90 %)."
    if report.network:
        yield from _network(report.network)
    if report.map:
        yield from _map(report.map)
    if report.query:
        yield from _query(report.query)
    if report.rerank:
        yield from _table(
            "Re-ranking",
            ("candidates", "read from the map", "in memory", "extracted on demand", "on demand / read"),
            [(row.candidates, row.read, row.cached, row.on_demand, row.times_as_fast) for row in report.rerank],
        )
    if report.search:
        yield from _table(
            "Search for 100 places",
            ("places", "dimension", "index", "time", "exact float32", "recall@10", "build s", "bytes a place"),
            [
                (
                    f"{row.places:,}",
                    row.dimension,
                    row.kind,
                    row.time,
                    row.exact,
                    row.recall_at_10,
                    row.build_s,
                    row.bytes_per_place,
                )
                for row in report.search
            ],
        )
    if report.node:
        yield from _node(report.node)
    if report.accuracy:
        columns = (
            "data set",
            "method",
            "engine",
            "queries",
            "R@1 %",
            "global bytes",
            "local bytes",
            "ms beyond network",
        )
        yield from _table("Accuracy", columns, [tuple(asdict(row).values()) for row in report.accuracy])
    yield from ("", *(f"Note: {note}" for note in report.notes)) if report.notes else ()


def _network(figures: NetworkFigures) -> Iterator[str]:
    rows: list[tuple[object, ...]] = [("all blocks, PyTorch", figures.whole_network, "", "", "", "")]
    for row in figures.engines:
        if row.time is None:
            continue
        found = row.agreement
        cosines = (f"{found['mean']:.6f} / {found['worst']:.6f}", f"{found['local_mean']:.6f}") if found else ("", "")
        rows.append((row.name, row.time, row.times_as_fast, *cosines, row.opened_s))
    columns = ("network, one image", "time", "times torch", "global cosine mean / worst", "local cosine", "opened s")
    yield from _table(f"Engines ({figures.image_size} px; best: {figures.best})", columns, rows)
    for row in figures.engines:
        if row.skipped:
            yield f"{row.name} was not measured: {row.skipped}"


def _map(figures: MapFigures) -> Iterator[str]:
    parts = [(name.replace("_", " "), size) for name, size in figures.bytes_per_place.items()]
    parts.append(("fp16 of all patches would be", figures.all_patches_fp16_bytes))
    title = f"Map of {figures.places:,} places, {figures.keypoints} patches each"
    yield from _table(title, ("bytes a place", ""), parts)
    yield f"written in {figures.written_s:.1f} s, opened in {figures.opened_ms:.0f} ms"


def _query(figures: QueryFigures) -> Iterator[str]:
    before = ("decode", "preprocess", "network", "describe", "search")
    stages = (*before, "rerank", "rerank_cached", "verify", "decide", "around")
    names = {
        "rerank": "re-rank",
        "rerank_cached": "(re-rank, in memory)",
        "verify": "(third stage, where it runs)",
        "around": "all but the network",
    }
    title = f"One query, {figures.engine}, {figures.places:,} places, {figures.candidates} candidates"
    yield from _table(title, ("stage", "time"), [(names.get(name, name), getattr(figures, name)) for name in stages])
    yield f"beside the network {figures.around.median_ms:.1f} ms of at most {figures.limit_ms:.1f}"


def _node(figures: NodeFigures) -> Iterator[str]:
    title = f"place_recognizer over DDS, {figures.engine}, {figures.places:,} places"
    stages = [(f"in the node: {name}", timing) for name, timing in figures.stages.items()]
    starts = [
        ("start to active", figures.start),
        ("start to first answer", figures.first_answer),
        ("start to first answer, torch", figures.first_answer_torch),
    ]
    rows = [*starts, ("image to answer", figures.latency), *stages]
    yield from _table(title, ("", "time"), [*rows, ("image to answer without extract", figures.around)])
    yield f"start to first answer {figures.times_torch:.2f} times that of torch"
    if figures.full_speed_first_s is not None and figures.full_speed_later_s is not None:
        yield (
            f"engine auto at full speed {figures.full_speed_first_s:.1f} s after its first start, "
            f"{figures.full_speed_later_s:.1f} s after a later one"
        )
    yield f"resident memory {figures.resident_mib:.0f} MiB, {figures.anonymous_mib:.0f} of them anonymous"


def _table(title: str, columns: Sequence[str], rows: Sequence[tuple[object, ...]]) -> Iterator[str]:
    texts = [[str(value) for value in row] for row in rows]
    widths = [max(len(line[place]) for line in (columns, *texts)) for place in range(len(columns))]

    def line(values: Sequence[str]) -> str:
        return "| " + " | ".join(value.ljust(width) for value, width in zip(values, widths, strict=True)) + " |"

    yield from ("", f"### {title}", line(columns), "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    yield from map(line, texts)
