"""Lifecycle node `loop_closure_detector`: a map that grows while the robot drives, and the loops that it closes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from rclpy.parameter import Parameter

from effovpr_ros.loop_closure.loop_config import LOOP_RECOGNIZER, LoopConfig
from effovpr_ros.nodes import parameters
from effovpr_ros.nodes.adapters.adapter_config import LoopAdapterConfig
from effovpr_ros.nodes.camera_node import CameraNode, run_camera_node
from effovpr_ros.nodes.detecting import Detecting, DetectorSettings
from effovpr_ros.nodes.executor import settled
from effovpr_ros.nodes.loop_engine import LoopEngine
from effovpr_ros.nodes.map_paths import map_folder
from effovpr_ros.nodes.parameters import CameraNodeConfig, LoopNodeConfig
from effovpr_ros.nodes.worker import LatestWorker
from effovpr_ros.recognition.recognizer_config import RecognizerConfig
from effovpr_ros.srv import SaveMap

CONFIGS = (LoopNodeConfig(), LoopAdapterConfig(), LoopConfig(), LOOP_RECOGNIZER)
"""Whose fields are parameters beside those of `CameraNodeConfig`."""


class LoopClosureDetectorNode(CameraNode[DetectorSettings, LoopEngine, Detecting]):
    """Callbacks hand the newest image over; a worker makes keyframes and looks for loops."""

    def __init__(self, **options: Any) -> None:
        """Declare the parameters; everything that needs a model or a map waits for `configure`.

        Args:
            options: of `rclpy.node.Node`, such as `context` or `parameter_overrides`.
        """
        super().__init__("loop_closure_detector", *CONFIGS, live=[LoopConfig, RecognizerConfig], **options)
        self.serve(SaveMap, "~/save_map", self._on_save_map)

    def _read_settings(self, changed: Sequence[Parameter[Any]] = ()) -> DetectorSettings:
        recognizer = parameters.read(self, RecognizerConfig, changed)
        settings = DetectorSettings(
            parameters.read(self, CameraNodeConfig, changed),
            parameters.read(self, LoopNodeConfig, changed),
            parameters.read(self, LoopAdapterConfig, changed),
            parameters.read(self, LoopConfig, changed),
            recognizer,
            self.map_parameters.given(recognizer, changed),
        )
        # What does not go together is refused now, not at the first closure.
        settings.body_from_camera  # noqa: B018
        return settings

    def _load(self, settings: DetectorSettings) -> LoopEngine:
        own = self.map_parameters.own(settings.recognizer)
        return LoopEngine(settings.camera, settings.node, own, settings.loops, settings.given)

    def _make_configured(
        self, settings: DetectorSettings, engine: LoopEngine, worker: LatestWorker, resources: ExitStack
    ) -> Detecting:
        return Detecting(self, settings, engine, worker, resources)

    def _take_over(self, state: Detecting, settings: DetectorSettings) -> None:
        state.use(settings.recognizer, settings.loops)

    async def _on_save_map(self, request: SaveMap.Request, response: SaveMap.Response) -> SaveMap.Response:
        folder = map_folder(request.path, str(self.get_parameter("map_root").value))
        saving = self.configured.save_map(folder, request.name)
        await settled(saving, self)
        response.success, response.message = True, f"{saving.result()} keyframes in {folder}"
        return response


def main() -> None:
    """Run the node until it is interrupted."""
    run_camera_node(LoopClosureDetectorNode, "loop_closure_detector")


if __name__ == "__main__":
    main()
