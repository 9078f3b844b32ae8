"""The action `~/relocalize`: asks for the place of image after image until it is sure, or the time is out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from rclpy.action.server import ActionServer, CancelResponse, GoalResponse
from sensor_msgs.msg import Image

from effovpr_ros.action import Relocalize
from effovpr_ros.core.errors import EffoVPRError, NodeError
from effovpr_ros.core.poses import Pose
from effovpr_ros.msg import PlaceMatch
from effovpr_ros.nodes.conversions import ns_from_time, pose_message, time_from_ns
from effovpr_ros.nodes.executor import settled
from effovpr_ros.nodes.guarded_node import GuardedNode, describe
from effovpr_ros.nodes.localize_request import LocalizeRequest
from effovpr_ros.nodes.map_odom_broadcaster import sighting_of
from effovpr_ros.nodes.robot_pose import RobotPose
from effovpr_ros.recognition.relocalization import (
    DEFAULT_AGREEING,
    DEFAULT_TIMEOUT_S,
    Relocalization,
    RelocalizationConfig,
)
from effovpr_ros.recognition.sightings import Sighting

_AN_IMAGE_S = 5.0
_PAUSE_S = 0.1
# An unknown heading, see docs/integrations.md.
_UNKNOWN_YAW = math.pi**2


class Localizes(Protocol):
    """What a configured node does for the action."""

    is_active: bool
    robot: RobotPose

    def localize(self, request: LocalizeRequest, image: Image) -> None:
        """Answer one call."""

    def expire(self, request: LocalizeRequest) -> None:
        """Tell a call why it has no answer by now."""


class Relocalizing:
    """One goal at a time; no thread waits."""

    def __init__(self, node: GuardedNode, state_of: Callable[[], Localizes]) -> None:
        """Offer the action for as long as the node lives.

        Args:
            node: that offers it.
            state_of: what the node works with; raises NodeError where it is not configured.
        """
        self._node = node
        self._state_of = state_of
        self._asked: LocalizeRequest | None = None
        self._running = False
        self._server: ActionServer[Any, Any, Any] = ActionServer(
            node,
            Relocalize,
            "~/relocalize",
            execute_callback=self._execute,
            goal_callback=self._on_goal,
            cancel_callback=self._on_cancel,
            callback_group=node.default_callback_group,
        )

    def destroy(self) -> None:
        """Withdraw the action."""
        self._server.destroy()

    def _on_goal(self, goal: Relocalize.Goal) -> GoalResponse:
        """Refuse what cannot be done, with the reason in the log."""
        try:
            _config_of(goal)
            if self._running:
                raise NodeError("another goal of ~/relocalize runs; cancel it, or wait for it")
            if not self._state_of().is_active:
                raise NodeError("the node is not active; activate it first")
        except EffoVPRError as error:
            self._node.get_logger().error(f"~/relocalize is refused: {error}")
            return GoalResponse.REJECT
        self._running = True
        return GoalResponse.ACCEPT

    def _on_cancel(self, goal: Any) -> CancelResponse:
        if self._asked is not None:
            self._asked.refuse("the goal was cancelled")
        return CancelResponse.ACCEPT

    async def _execute(self, goal: Any) -> Relocalize.Result:
        """Ask until it is sure; ends as succeeded, aborted (time, or the node was stopped) or cancelled."""
        result = Relocalize.Result(status=Relocalize.Result.STOPPED)
        try:
            config = _config_of(goal.request)
            state = self._state_of()
            state.robot.listen_for_action(True)
            try:
                await self._ask_until_sure(goal, state, config, result)
            finally:
                state.robot.listen_for_action(False)
        except Exception as error:  # a goal must not end the node, whatever is wrong with it
            result.message = describe(error)
            self._node.get_logger().error(f"~/relocalize: {result.message}")
        finally:
            self._running = False
        if result.status == Relocalize.Result.SURE:
            goal.succeed()
        elif goal.is_cancel_requested:
            goal.canceled()
        else:
            goal.abort()
        return result

    async def _ask_until_sure(
        self, goal: Any, state: Localizes, config: RelocalizationConfig, result: Relocalize.Result
    ) -> None:
        asking, last_ns, frame_id = Relocalization(config), -1, ""
        deadline_s = time.monotonic() + config.timeout_s
        message = "no image was answered"
        while not asking.is_sure:
            left_s = deadline_s - time.monotonic()
            if goal.is_cancel_requested or not state.is_active or left_s <= 0.0:
                break
            request = LocalizeRequest(min(left_s, _AN_IMAGE_S), after_ns=last_ns)
            self._asked = request
            try:
                match = await self._answer(state, request)
            except NodeError as error:
                message = str(error)
                self._tell(goal, asking, frame_id, message)
                await self._pause()
                continue
            finally:
                self._asked = None
            last_ns, frame_id, message = ns_from_time(match.header.stamp), match.header.frame_id, match.reason
            odometry = state.robot.odometry_at(last_ns)
            asking.add(odometry, _sighting(match, odometry))
            self._tell(goal, asking, frame_id, message)
        stopped = goal.is_cancel_requested or not state.is_active
        result.status = Relocalize.Result.STOPPED if stopped else Relocalize.Result.TIMEOUT
        if asking.is_sure:
            result.status = Relocalize.Result.SURE
            message = f"{asking.num_supporting} answers support one pose, {len(asking.best)} of them a MATCH"
        elif stopped:
            message = "the goal was cancelled" if goal.is_cancel_requested else "the node was stopped"
        result.message = f"{message}; {asking.num_images} images asked"
        result.num_images, result.num_agreeing = asking.num_images, asking.num_supporting
        result.confidence = asking.confidence
        _fill_pose(result, asking.answer, frame_id)

    async def _answer(self, state: Localizes, request: LocalizeRequest) -> PlaceMatch:
        """The answer to the next image; raises NodeError where there is none."""
        state.localize(request, Image())
        timer = self._node.after(request.timeout_s, partial(state.expire, request))
        try:
            await settled(request.answer, self._node)
        finally:
            self._node.destroy_timer(timer)
        return request.answer.result()

    async def _pause(self) -> None:
        """Let some time pass, so that what is refused at once is not asked for without end."""
        passed: Future[None] = Future()
        timer = self._node.after(_PAUSE_S, partial(passed.set_result, None))
        passed.add_done_callback(lambda _: timer.cancel())
        try:
            await settled(passed, self._node)
        finally:
            self._node.destroy_timer(timer)

    def _tell(self, goal: Any, asking: Relocalization, frame_id: str, message: str) -> None:
        feedback = Relocalize.Feedback(
            num_images=asking.num_images, num_agreeing=asking.num_supporting, message=message
        )
        feedback.state = Relocalize.Feedback.CONFIRMING if asking.best else Relocalize.Feedback.SEARCHING
        if not asking.num_images:
            feedback.state = Relocalize.Feedback.WAITING
        feedback.confidence = asking.confidence
        _fill_pose(feedback, asking.answer, frame_id)
        goal.publish_feedback(feedback)


def _sighting(match: PlaceMatch, odometry: Pose | None) -> Sighting | None:
    """The pose of a MATCH or AMBIGUOUS answer that has one with a heading."""
    if match.status == PlaceMatch.NO_MATCH or not match.has_pose or match.pose.covariance[35] >= _UNKNOWN_YAW:
        return None
    return replace(sighting_of(match), odometry=odometry)


def _fill_pose(message: Any, sighting: Sighting | None, frame_id: str) -> None:
    if sighting is None:
        return
    message.has_pose = True
    message.pose.header.frame_id, message.pose.header.stamp = frame_id, time_from_ns(sighting.stamp_ns)
    message.pose.pose.pose = pose_message(sighting.pose)
    message.pose.pose.covariance = sighting.covariance.ravel()


def _config_of(goal: Relocalize.Goal) -> RelocalizationConfig:
    return RelocalizationConfig(
        goal.timeout_s or DEFAULT_TIMEOUT_S, goal.min_confidence, goal.num_agreeing or DEFAULT_AGREEING
    )
