"""`effovpr map build` of several sources, and of several cameras of a bag: each joins the map as a session."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from copy import copy

from effovpr_ros.core.errors import ConfigError
from effovpr_ros.core.images import shown
from effovpr_ros.core.mounted_cameras import camera_names
from effovpr_ros.sources.bag_files import is_bag


def options_by_source(options: argparse.Namespace) -> list[argparse.Namespace]:
    """The options of a build of each source alone.

    Raises:
        ConfigError: one source twice, or an option that is of one source for several.
    """
    sources: list[str] = options.source
    if len(sources) > 1:
        of_one = {"--session": options.session, "--session-frame": options.session_frame, "--table": options.table}
        given = [name for name, value in of_one.items() if value]
        if given:
            raise ConfigError(
                f"{given[0]} is of one source, and {len(sources)} are named; build one after the other, each adds to "
                "the map"
            )
        twice = sorted({source for source in sources if sources.count(source) > 1})
        if twice:
            raise ConfigError(f"{', '.join(twice)} is named twice; name each source once")
    if options.session_frame and not options.session:
        raise ConfigError("--session-frame needs --session, the name of the drive whose frame it is")
    return [_with(options, source=source) for source in sources]


def options_by_camera(
    options: argparse.Namespace, map_frame: Callable[[], str]
) -> Iterator[tuple[str, argparse.Namespace]]:
    """Name of each camera and the options of a build of it alone; the name is empty where there is one camera.

    The session of each is called DRIVE:CAMERA, and its poses are in the frame of the first's: those of one body.

    Args:
        options: of the command; `source` is a path and `image_topic` a list.
        map_frame: name of the map's frame, which is asked for once the first camera is built.

    Raises:
        ConfigError: several cameras of what is no bag, one topic twice, or one calibration or mounting for several.
    """
    topics: list[str] = options.image_topic
    if len(topics) == 1:
        yield "", _with(options, image_topic=topics[0])
        return
    if not is_bag(options.source):
        raise ConfigError(f"several image topics are those of a bag; {shown(options.source)} is a folder of images")
    twice = sorted({topic for topic in topics if topics.count(topic) > 1})
    if twice:
        raise ConfigError(f"--image-topic names {', '.join(twice)} twice; name each camera once")
    if options.camera is not None or options.camera_pose:
        raise ConfigError(
            "--camera and --camera-pose are of one camera; build each topic by itself with them, or record camera_info "
            "and /tf_static"
        )
    drive = options.session or shown(options.source.resolve().stem)
    frame = options.session_frame
    for number, (name, topic) in enumerate(zip(camera_names(topics), topics, strict=True)):
        if number and not frame:
            frame = map_frame()
        yield name, _with(options, image_topic=topic, session=f"{drive}:{name}", session_frame=frame)


def _with(options: argparse.Namespace, **changed: object) -> argparse.Namespace:
    made = copy(options)
    for name, value in changed.items():
        setattr(made, name, value)
    return made
