"""A node as a program: from the command line to a clean end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node

from effovpr_ros.core.errors import EffoVPRError
from effovpr_ros.nodes.worker import THREAD_NAME

AnyNode = TypeVar("AnyNode", bound=Node)


def run_node(name: str, make_node: Callable[[], AnyNode], spin: Callable[[AnyNode], None]) -> None:
    """Run a node until it is done or interrupted; exits with a line that says why where it cannot be made.

    Args:
        name: of the program.
        make_node: called once ROS is initialised.
        spin: returns when the node is done.
    """
    rclpy.init(args=sys.argv)
    node = None
    try:
        node = make_node()
        spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (EffoVPRError, ParameterException) as error:
        sys.exit(f"{name}: {error}")
    finally:
        # A terminal interrupts the node a second time, beside the launch process, while it cleans up.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
        # The shutdown has put back the handler that was there before.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if any(thread.name == THREAD_NAME for thread in threading.enumerate()):
            # A model that still loads cannot be interrupted, and a thread inside torch would abort the interpreter's
            # end. Maps are whole at any moment.
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(0)
