"""A node as a program: from the command line to a clean end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node

from effovpr_ros.core.errors import EffoVPRError

AnyNode = TypeVar("AnyNode", bound=Node)


def run_node(name: str, make_node: Callable[[], AnyNode], spin: Callable[[AnyNode], None]) -> None:
    """Run a node until it is done or interrupted, and end the process; one that cannot be made leaves a line of why.

    Args:
        name: of the program.
        make_node: called once ROS is initialised.
        spin: returns when the node is done.
    """
    rclpy.init(args=sys.argv)
    node = None
    failure = ""
    try:
        node = make_node()
        spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (EffoVPRError, ParameterException) as error:
        failure = f"{name}: {error}"
    finally:
        # A terminal interrupts the node a second time, beside the launch process, while it cleans up.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
        # The shutdown has put back the handler that was there before.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end(failure)


def _end(failure: str) -> NoReturn:
    """End without taking down interpreter and libraries, to which nothing is left to do: maps are whole at any moment.

    That takes seconds on a busy machine, after five of which a launch process kills; and a model that still loads
    cannot be interrupted, and its thread inside torch would abort the interpreter's end.
    """
    if failure:
        print(failure, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if failure else 0)
