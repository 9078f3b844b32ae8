"""Serves a map on a Ray cluster: brings up extractors, shards and gateways, and newer revisions beside older ones."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray import serve
from ray.serve.api import RunTarget
from ray.serve.config import HTTPOptions

from effovpr_ros.cluster.gateway import ExtractorReplica, Gateway, GatewaySettings
from effovpr_ros.cluster.replicas import Replicas
from effovpr_ros.cluster.shard_replica import ShardReplica
from effovpr_ros.core.errors import ConfigError, EffoVPRError, ServerError
from effovpr_ros.mapping.manifest import Manifest, read_manifest
from effovpr_ros.mapping.shards import ShardEntry
from effovpr_ros.serving.limits import Limits
from effovpr_ros.serving.revisions import ServedMap, Watch
from effovpr_ros.serving.running import Address

_logger = logging.getLogger(__name__)

_ONGOING = 256
_DIGITS = 12
_HEALTH_S = 5.0


class ClusterServer:
    """A served map on a cluster."""

    def __init__(
        self,
        served: ServedMap,
        address: Address,
        limits: Limits,
        tokens: Sequence[str],
        replicas: Replicas,
    ) -> None:
        """Bring up everything, and wait until it answers; Ray is connected to.

        Args:
            served: the map; its folder is on a file system that all nodes of the cluster have.
            address: where every node with a gateway listens.
            limits: of each gateway.
            tokens: that open it.
            replicas: how many.

        Raises:
            EffoVPRError: no usable map or model; a ServerError where the cluster does not bring it up.
        """
        if not address.port:
            raise ConfigError("a cluster's gateways listen on a port that is known: give --port")
        self._served = replace(served, path=served.path.resolve())
        self._replicas, self._limits = replicas, limits
        self._watch = Watch(self._served)
        self._prefix = f"effovpr-{hashlib.sha256(str(self._served.path).encode()).hexdigest()[:_DIGITS]}"
        self._gateway = GatewaySettings(served.settings, limits, tuple(tokens))
        self._apps: set[str] = set()
        manifest = read_manifest(self._served.path)
        serve.start(
            http_options=HTTPOptions(
                host=address.host,
                port=address.port,
                ssl_certfile=address.tls_cert or None,
                ssl_keyfile=address.tls_key or None,
                request_timeout_s=2.0 * limits.answer_timeout_s,
            )
        )
        self._bring_up(manifest)

    def refresh(self) -> bool:
        """Bring up a newer revision beside the one that answers, if there is one; whether that is so.

        Shards that did not change stay as they are. What is not needed any more goes once the questions at hand are
        answered.
        """
        if not self._watch.has_changed():
            return False
        try:
            manifest = read_manifest(self._served.path)
            former = set(self._apps)
            self._bring_up(manifest)
        except EffoVPRError as error:
            _logger.error("a newer revision of map %s is not served: %s", self._served.path, error)
            return False
        finally:
            self._watch.take()
        leaving = former - self._apps
        if leaving:
            time.sleep(min(self._limits.answer_timeout_s, 10.0))
        for app in sorted(leaving):
            serve.delete(app, _blocking=False)
        return True

    def close(self) -> None:
        """Take everything down that was brought up."""
        for app in sorted({*self._apps, f"{self._prefix}-gateway"}):
            serve.delete(app, _blocking=False)

    def _bring_up(self, manifest: Manifest) -> None:
        extractors, shards = self._extractors(manifest), {e.name: self._shard(e) for e in manifest.shards}
        wanted = {extractors.name: extractors, **{target.name: target for target in shards.values()}}
        fresh = [target for name, target in wanted.items() if name not in self._apps]
        use = {
            "map": str(self._served.path),
            # Another revision has another one, so that gateways look again although nothing else is new.
            "revision": hashlib.sha256(repr((manifest, self._served.signature())).encode()).hexdigest()[:_DIGITS],
            "extractors": extractors.name,
            "shards": {name: target.name for name, target in shards.items()},
        }
        gateway = _deployment(
            Gateway,
            num_replicas=self._replicas.gateways,
            user_config=use,
            ray_actor_options={"num_cpus": self._replicas.shard_cpus},
        ).bind(self._gateway)
        try:
            if fresh:
                serve.run_many(fresh)
            serve.run(gateway, name=f"{self._prefix}-gateway", route_prefix="/")
        except (RuntimeError, ValueError, TimeoutError) as error:
            raise ServerError(f"the cluster does not bring up the server: {_last_line(error)}") from error
        self._apps = set(wanted)

    def _extractors(self, manifest: Manifest) -> RunTarget:
        cpus = self._replicas.extractor_cpus
        deployment = _deployment(
            ExtractorReplica,
            name="extractor",
            num_replicas=self._replicas.extractors,
            ray_actor_options={"num_cpus": cpus, "num_gpus": self._replicas.extractor_gpus},
        )
        model = hashlib.sha256(repr((manifest.fingerprint, dict(self._served.model))).encode()).hexdigest()[:_DIGITS]
        return RunTarget(
            deployment.bind(self._served, _threads(cpus)), name=f"{self._prefix}-model-{model}", route_prefix=None
        )

    def _shard(self, entry: ShardEntry) -> RunTarget:
        deployment = _deployment(
            ShardReplica,
            name="shard",
            num_replicas=self._replicas.shard_replicas,
            ray_actor_options={"num_cpus": self._replicas.shard_cpus},
        )
        # Numbers are the shard's own, so that the same shard of another revision is the same.
        known = hashlib.sha256(repr((entry.name, entry.path, entry.sha256)).encode()).hexdigest()[:_DIGITS]
        return RunTarget(
            deployment.bind(str(self._served.path), entry.name, _threads(self._replicas.shard_cpus)),
            name=f"{self._prefix}-shard-{known}",
            route_prefix=None,
        )


def _deployment(kind: type, **options: Any) -> Any:
    return serve.deployment(max_ongoing_requests=_ONGOING, health_check_period_s=_HEALTH_S, **options)(kind)


def connect(address: str) -> None:
    """Connect to a cluster; `local` begins one of this machine, for as long as the program runs.

    Raises:
        ServerError: there is none, or it runs another version of Ray or Python.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, namespace="effovpr")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ServerError(f"no Ray cluster can be used at {address!r}: {_last_line(error)}") from error


def serve_until(server: ClusterServer, watch_s: float, ended: Callable[[], bool]) -> None:
    """Look for newer revisions until it ends.

    Args:
        server: that was brought up.
        watch_s: how often.
        ended: whether it does.
    """
    while not ended():
        time.sleep(watch_s)
        server.refresh()


def _threads(cpus: float) -> int:
    return max(1, round(cpus))


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
