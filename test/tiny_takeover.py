"""The process that finds the fastest engine, for the tiny network, which only tests know."""

import sys

import synthetic  # noqa: F401

from effovpr_ros.features.engine_takeover import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
