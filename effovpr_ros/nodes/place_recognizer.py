"""Lifecycle node `place_recognizer`: answers each camera image with the place of a prior map that it shows."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack
from functools import partial
from typing import Any

from rclpy.parameter import Parameter

from effovpr_ros.core.errors import ConfigError, NodeError
from effovpr_ros.nodes import camera_config, parameters
from effovpr_ros.nodes.adapters.adapter_config import MatchAdapterConfig
from effovpr_ros.nodes.camera_config import QueryCameraConfig
from effovpr_ros.nodes.camera_node import CameraNode, run_camera_node
from effovpr_ros.nodes.executor import settled
from effovpr_ros.nodes.localize_request import LocalizeRequest
from effovpr_ros.nodes.map_engine import MapEngine
from effovpr_ros.nodes.map_paths import map_folder, map_server
from effovpr_ros.nodes.parameters import CameraNodeConfig, NodeConfig
from effovpr_ros.nodes.recognition_engine import RecognitionEngine
from effovpr_ros.nodes.recognizing import RecognizerSettings, Recognizing
from effovpr_ros.nodes.relocalizing import Relocalizing
from effovpr_ros.nodes.served_map_engine import ServedMapEngine
from effovpr_ros.nodes.server_config import ServerConfig
from effovpr_ros.nodes.worker import LatestWorker
from effovpr_ros.recognition.map_odom_config import MapOdomConfig
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.remote.tokens import is_server
from effovpr_ros.srv import LoadMap, Localize

CONFIGS = (
    NodeConfig(),
    ServerConfig(),
    QueryCameraConfig(),
    RecognizerConfig(),
    MapOdomConfig(),
    MatchAdapterConfig(),
)
"""Whose fields are parameters beside those of `CameraNodeConfig`."""


class PlaceRecognizerNode(CameraNode[RecognizerSettings, MapEngine, Recognizing]):
    """Callbacks hand the newest image over; a worker recognises and publishes."""

    def __init__(self, **options: Any) -> None:
        """Declare the parameters; everything that needs a model or a map waits for `configure`.

        Args:
            options: of `rclpy.node.Node`, such as `context` or `parameter_overrides`.
        """
        self._relocalizing: Relocalizing | None = None
        super().__init__("place_recognizer", *CONFIGS, live=[RecognizerConfig], **options)
        self.serve(Localize, "~/localize", self._on_localize)
        self.serve(LoadMap, "~/load_map", self._on_load_map)
        self._relocalizing = Relocalizing(self, lambda: self.configured)

    def _declare_others(self) -> set[str]:
        return camera_config.declare_cameras(self)

    def _read_settings(self, changed: Sequence[Parameter[Any]] = ()) -> RecognizerSettings:
        recognizer = parameters.read(self, RecognizerConfig, changed)
        return RecognizerSettings(
            parameters.read(self, CameraNodeConfig, changed),
            parameters.read(self, NodeConfig, changed),
            parameters.read(self, MatchAdapterConfig, changed),
            recognizer,
            camera_config.read_cameras(self, changed),
            parameters.read(self, MapOdomConfig, changed),
            parameters.read(self, ServerConfig, changed),
            self.map_parameters.given(recognizer, changed),
        )

    def _load(self, settings: RecognizerSettings) -> MapEngine:
        own, root = self.map_parameters.own(settings.recognizer), settings.camera.map_root
        if is_server(settings.node.map_path):
            if settings.cameras.several:
                raise ConfigError("several cameras cannot ask a server; use one, or a map of this machine")
            server = map_server(settings.node.map_path, root)
            return ServedMapEngine(server, settings.camera, settings.server, own, settings.node.num_candidates)
        engine = RecognitionEngine(settings.camera, own, settings.given, settings.node.map_memory_mb * 10**6)
        if settings.node.map_path:
            engine.load_map(map_folder(settings.node.map_path, root))
        return engine

    def _make_configured(
        self, settings: RecognizerSettings, engine: MapEngine, worker: LatestWorker, resources: ExitStack
    ) -> Recognizing:
        return Recognizing(self, settings, engine, worker, resources)

    def _take_over(self, state: Recognizing, settings: RecognizerSettings) -> None:
        state.use(settings)

    def destroy_node(self) -> None:
        """Stop working and withdraw everything, the action too."""
        super().destroy_node()
        # There is none where a parameter was refused.
        if self._relocalizing is not None:
            self._relocalizing.destroy()

    async def _on_localize(self, request: Localize.Request, response: Localize.Response) -> Localize.Response:
        state, waiting = self.configured, LocalizeRequest(request.timeout_s)
        state.localize(waiting, request.image)
        timer = self.after(waiting.timeout_s, partial(state.expire, waiting))
        try:
            await settled(waiting.answer, self)
        finally:
            self.destroy_timer(timer)
        response.match, response.success = waiting.answer.result(), True
        return response

    async def _on_load_map(self, request: LoadMap.Request, response: LoadMap.Response) -> LoadMap.Response:
        state = self.configured
        folder = map_folder(request.path, str(self.get_parameter("map_root").value))
        loading = state.load_map(folder)
        await settled(loading, self)
        try:
            loaded = loading.result()
        except CancelledError as error:
            raise NodeError("the node is being cleaned up or shut down") from error
        state.show_map(loaded)
        self.set_own("map_path", str(folder))
        response.success, response.message = True, f"map {loaded.name} with {state.engine.num_places} places"
        return response


def main() -> None:
    """Run the node until it is interrupted."""
    run_camera_node(PlaceRecognizerNode, "place_recognizer")


if __name__ == "__main__":
    main()
