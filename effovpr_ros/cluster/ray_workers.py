"""Parts of a build on a Ray cluster: Ray Data hands them to actors, each with a model of its own."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from effovpr_ros.cluster.parts import PartReport
from effovpr_ros.cluster.shard_builder import ShardBuilder
from effovpr_ros.cluster.versions import require_ray
from effovpr_ros.cluster.work import Part, ShardJob
from effovpr_ros.core import errors
from effovpr_ros.core.errors import ConfigError, EffoVPRError

_logger = logging.getLogger(__name__)

LOCAL = "local"
# One part that is worked on, and one that waits, so that no worker is idle and none hoards.
_PARTS_IN_FLIGHT = 2
# Ray may cancel workers before they run, as on a machine that is busy with other work; shards are written once anyhow.
_ATTEMPTS = 3


@dataclass(frozen=True)
class PoolConfig:
    """Workers of a cluster.

    Attributes:
        address: of the cluster, as Ray names it (`ray://host:10001`, `host:6379`, `auto`); `local` starts Ray on this
            machine for as long as the command runs.
        workers: how many; 0: as many as the cluster has room for.
        cpus: of each; the network uses as many threads.
        gpus: of each, of which fractions share one.
    """

    address: str = LOCAL
    workers: int = 0
    cpus: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if self.workers < 0 or not self.cpus > 0.0 or not self.gpus >= 0.0:
            raise ConfigError(
                f"{self.workers} workers of {self.cpus} CPUs and {self.gpus} GPUs are impossible; workers and GPUs "
                "are 0 or more, CPUs more than 0"
            )


class _Worker:
    """An actor: a model, and a part at a time. Where it cannot start it says so, since Ray would try without end."""

    def __init__(self, job: ShardJob) -> None:
        self._builder: ShardBuilder | None = None
        self._failed = {"kind": "", "why": ""}
        try:
            self._builder = ShardBuilder(job)
        except EffoVPRError as error:
            self._failed = {"kind": type(error).__name__, "why": str(error)}

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        (part,) = batch["part"]
        report = "" if self._builder is None else self._builder.build(pickle.loads(part)).to_json()
        return {"report": [report], **{name: [text] for name, text in self._failed.items()}}


@contextmanager
def connected(config: PoolConfig) -> Iterator[int]:
    """A connection to the cluster; inside, how many workers there will be.

    Raises:
        ConfigError: Ray is missing, the cluster cannot be reached, or has no room for a worker.
    """
    require_ray()
    import ray

    ours = not ray.is_initialized()
    if ours:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
        if config.address == LOCAL:
            options["include_dashboard"] = False
        try:
            ray.init(address=config.address, **options)
        except Exception as error:  # Ray raises what its parts raise
            raise ConfigError(
                f"the Ray cluster at {config.address!r} cannot be used: {_last_line(error)}; see that `ray status` "
                "answers there, or leave the address out to run on this machine"
            ) from error
    try:
        yield _room(config, ray.cluster_resources())
    finally:
        if ours:
            ray.shutdown()


def run_on_ray(job: ShardJob, parts: Sequence[Part], config: PoolConfig, workers: int) -> Iterator[PartReport]:
    """Build parts on the cluster that is connected; reports come as they are finished.

    Workers and machines that die are replaced, and what they had begun is done again.

    Args:
        job: of the build.
        parts: to build.
        config: of the workers.
        workers: how many, see `connected`.

    Raises:
        EffoVPRError: a worker cannot start, as without weights.
        ConfigError: the cluster is lost.
    """
    import ray

    left = {part.number: part for part in parts}
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            for report in _reports(job, list(left.values()), config, workers):
                # What Ray does twice is reported twice.
                left.pop(report.number, None)
                yield report
            return
        except EffoVPRError:
            raise
        except Exception as error:  # Ray raises what its parts raise
            if not left:
                return
            if attempt == _ATTEMPTS or not isinstance(error, ray.exceptions.RayActorError):
                raise ConfigError(
                    f"the cluster gave up: {_last_line(error)}; finished shards are kept, and the same command resumes"
                ) from error
            _logger.warning("Ray lost the workers (%s); %d parts are handed out again", _last_line(error), len(left))


def _reports(job: ShardJob, parts: Sequence[Part], config: PoolConfig, workers: int) -> Iterator[PartReport]:
    """One round of Ray Data over parts."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.use_ray_tqdm = False
    rows = [{"part": pickle.dumps(part)} for part in parts]
    pool = ActorPoolStrategy(size=min(workers, len(parts)), max_tasks_in_flight_per_actor=_PARTS_IN_FLIGHT)
    work = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _Worker,
        fn_constructor_args=(job,),
        batch_size=1,
        compute=pool,
        num_cpus=config.cpus,
        num_gpus=config.gpus or None,
    )
    for row in work.iter_rows():
        if not row["report"]:
            kind = getattr(errors, row["kind"], ConfigError)
            raise kind(f"a worker cannot start: {row['why']}")
        yield PartReport.from_json(row["report"])


def _room(config: PoolConfig, resources: dict[str, float]) -> int:
    """How many workers the cluster has room for, at most as many as are wanted."""
    room = int(resources.get("CPU", 0.0) / config.cpus)
    if config.gpus:
        room = min(room, int(resources.get("GPU", 0.0) / config.gpus))
    if not room:
        raise ConfigError(
            f"the cluster has {resources.get('CPU', 0.0):g} CPUs and {resources.get('GPU', 0.0):g} GPUs, no room for a "
            f"worker of {config.cpus:g} and {config.gpus:g}; ask for fewer with --worker-cpus and --worker-gpus"
        )
    if config.workers > room:
        _logger.warning("the cluster has room for %d workers, %d were asked for", room, config.workers)
    return min(config.workers or room, room)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else repr(error)
