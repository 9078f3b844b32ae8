"""The gateway: HTTP in, replicas asked, one answer out; and the replicas that extract."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fastapi import FastAPI
from ray import serve
from ray.exceptions import GetTimeoutError, RayTaskError

from effovpr_ros.cluster.calls import PASSES, Calls, own_error
from effovpr_ros.cluster.cluster_map import ClusterMap, ClusterRecognizer
from effovpr_ros.core.errors import EffoVPRError, ServerError
from effovpr_ros.core.version import version
from effovpr_ros.features.extractor_config import ModelFingerprint
from effovpr_ros.features.image_features import Features
from effovpr_ros.geometry.points import Points
from effovpr_ros.mapping.map_reading import MapReader
from effovpr_ros.mapping.sharded_map import open_map
from effovpr_ros.recognition.presets import config_for_map
from effovpr_ros.recognition.recognizer import PlaceRecognizer
from effovpr_ros.recognition.third_stage import point_extractor
from effovpr_ros.serving.answering import decode_picture
from effovpr_ros.serving.app import create_app
from effovpr_ros.serving.limits import Limits, Tokens
from effovpr_ros.serving.pipeline import Pipeline, Seen
from effovpr_ros.serving.revisions import Revision, Revisions, ServedMap
from effovpr_ros.serving.service import BusyError, Question

_logger = logging.getLogger(__name__)
_THREADS = 16


@dataclass(frozen=True)
class GatewaySettings:
    """What a gateway is started with; which revision it serves comes as Serve's `user_config`.

    Attributes:
        settings: fields of `RecognizerConfig` that are to differ from what the map was made for.
        limits: of what is taken; rates and questions at hand are counted by each gateway.
        tokens: that open it.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    tokens: tuple[str, ...] = ()


class ExtractorReplica:
    """The model of a map; for one thread."""

    def __init__(self, served: ServedMap, num_threads: int) -> None:
        """Load the model, and what finds points.

        Raises:
            EffoVPRError: no usable map or model.
        """
        torch.set_num_threads(num_threads)
        with open_map(served.path) as place_map:
            self._extractor = served.extractor(place_map)
        self._extractor.seek_faster_engine()
        self._points = point_extractor(str(self._extractor.device))
        self._points.load()

    def about(self) -> tuple[str, ModelFingerprint]:
        """Version of the package here, and the model."""
        return version(), self._extractor.fingerprint

    def extract(self, question: Question) -> tuple[Features, tuple[int, int]]:
        """Features of a question's picture, and its size."""
        image = decode_picture(question)
        return self._extractor.extract([image])[0], (image.shape[1], image.shape[0])

    def points(self, question: Question) -> Points:
        """Points of a question's picture."""
        return self._points.extract(decode_picture(question))


class _ModelElsewhere:
    """What a recogniser needs to know of the model that the extractors have."""

    def __init__(self, fingerprint: ModelFingerprint) -> None:
        self.fingerprint = fingerprint
        self.device = torch.device("cpu")

    def extract(self, images: Any) -> list[Features]:
        raise ServerError("the gateway has no model; the extractors have")


class ClusterRevision(Revision):
    """A map, its shards and extractors elsewhere.

    Attributes:
        extractors: handle of the deployment.
    """

    def __init__(self, use: Mapping[str, Any], settings: Mapping[str, Any], calls: Calls) -> None:
        """Connect.

        Args:
            use: `map`, its folder; `extractors`, the application's name; `shards`, applications by names of shards.
            settings: see `GatewaySettings`.
            calls: by which replicas are asked.

        Raises:
            EffoVPRError: no usable map, or replicas of another version of the package.
        """
        self.extractors = serve.get_app_handle(use["extractors"])
        handles = {name: serve.get_app_handle(app) for name, app in use["shards"].items()}
        for handle in (self.extractors, *handles.values()):
            theirs = calls.ask(handle.about)[0]
            if theirs != version():
                raise ServerError(
                    f"a node of the cluster runs effovpr_ros {theirs}, this one {version()}; install the same version "
                    "on all of them"
                )
        path = Path(use["map"])
        place_map: MapReader = ClusterMap.connect(path, calls, handles) if handles else open_map(path)
        try:
            config = config_for_map(place_map, settings)
            model = _ModelElsewhere(place_map.fingerprint)

            def make() -> PlaceRecognizer:
                if isinstance(place_map, ClusterMap):
                    return ClusterRecognizer(model, place_map, config)
                return PlaceRecognizer(model, place_map, config)

            super().__init__(place_map, make)
        except BaseException:
            place_map.close()
            raise


class ClusterService(Pipeline):
    """Answers by replicas; see `MapService`."""

    def __init__(self, settings: GatewaySettings) -> None:
        """Serve nothing yet."""
        super().__init__(_THREADS)
        self._settings = settings
        self._calls = Calls(settings.limits.answer_timeout_s)

    def use(self, use: Mapping[str, Any]) -> None:
        """Serve a revision from now on; see `ClusterRevision`."""
        try:
            fresh = ClusterRevision(use, self._settings.settings, self._calls)
        except EffoVPRError as error:
            if self.revisions is None:
                raise
            self.revisions.refuse(Path(use["map"]), error)
            return
        if self.revisions is None:
            self.revisions = Revisions(fresh)
        else:
            self.revisions.swap(fresh)

    def figures(self) -> dict[str, float]:
        """Gauges for the metrics."""
        return {**super().figures(), "calls_repeated": float(self._calls.repeated)}

    async def _look(self, revision: Revision, question: Question) -> Seen:
        assert isinstance(revision, ClusterRevision)
        features, size_wh = await self._extract(revision, question)
        return Seen(features, size_wh, partial(self._calls.ask, revision.extractors.points, question))

    async def _extract(self, revision: ClusterRevision, question: Question) -> tuple[Features, tuple[int, int]]:
        """Without a thread that waits: extraction takes longest."""
        ends_s = time.monotonic() + self._settings.limits.answer_timeout_s
        while True:
            try:
                found: tuple[Features, tuple[int, int]] = await revision.extractors.extract.remote(question)
                return found
            except RayTaskError as error:
                raise own_error(error) from error
            except PASSES as error:
                await asyncio.to_thread(self._calls.again, ends_s, error)
            except (TimeoutError, GetTimeoutError) as error:
                raise BusyError("no extractor answers") from error


@serve.ingress()
class Gateway:
    """One replica of the gateway; the application is the one of a single process."""

    def __init__(self, settings: GatewaySettings) -> None:
        """Start without a map, which `reconfigure` brings."""
        logging.getLogger("effovpr_ros").setLevel(logging.INFO)
        self._settings = settings
        self._service = ClusterService(settings)

    async def reconfigure(self, use: dict[str, Any]) -> None:
        """Serve a revision; called by Serve at the start and whenever `user_config` changes."""
        await asyncio.to_thread(self._service.use, use)

    async def __serve_build_asgi_app__(self) -> FastAPI:
        """The application, for Serve."""
        return create_app(self._service, self._settings.limits, Tokens(self._settings.tokens))
