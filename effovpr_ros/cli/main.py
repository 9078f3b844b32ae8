"""The command `effovpr`: parse, call, print."""

from __future__ import annotations

import argparse
import io
import logging
import shlex
import sys
from collections.abc import Sequence

from effovpr_ros.cli import (
    bench,
    calibrate,
    completion,
    demo,
    doctor,
    evaluate,
    map_commands,
    query,
    render,
    schema,
    serve,
    train,
)
from effovpr_ros.cli.parsing import WRONG_USAGE, Parser
from effovpr_ros.core.errors import EffoVPRError
from effovpr_ros.core.version import version

DONE, FAILED = 0, 1


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = Parser(
        prog="effovpr",
        description="Visual place recognition with EffoVPR: build maps, query them, evaluate, train, run the demo.",
        epilog="exit codes: 0 done, 1 the work failed, 2 wrong usage. Results go to stdout, the log to stderr.",
    )
    parser.add_argument("--version", action="version", version=f"effovpr {version()}")
    parser.add_argument("-v", "--verbose", action="store_true", help="log what is chosen automatically")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    map_commands.add_parser(commands)
    query.add_parser(commands)
    serve.add_parser(commands)
    evaluate.add_parser(commands)
    calibrate.add_parser(commands)
    train.add_parser(commands)
    demo.add_parser(commands)
    bench.add_parser(commands)
    render.add_parser(commands)
    doctor.add_parser(commands)
    schema.add_parser(commands)
    completion.add_parser(commands, make_parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given:
        parser = make_parser()
        parser.print_help(sys.stderr)
        parser.exit(WRONG_USAGE)
    # Reports name the command that made them.
    options = make_parser().parse_args(given, argparse.Namespace(command_line=shlex.join(("effovpr", *given))))
    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.WARNING,
        format="%(levelname)s %(message)s",
        stream=sys.stderr,
    )
    for stream in (sys.stdout, sys.stderr):
        # File names may hold bytes that no terminal takes.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code: int = options.run(options)
    except EffoVPRError as error:
        print(f"effovpr: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("effovpr: interrupted", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        sys.stderr.close()
        return DONE
    return code
