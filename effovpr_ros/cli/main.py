"""The command `effovpr`: parse, call, print."""

from __future__ import annotations

import argparse
import io
import logging
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module

from effovpr_ros.cli.parsing import WRONG_USAGE, Parser
from effovpr_ros.core.errors import EffoVPRError
from effovpr_ros.core.version import version

DONE, FAILED = 0, 1
COMMANDS = {
    "map": ("map_commands", "build, inspect, check, export, merge, shard and compact maps"),
    "query": ("query", "say which place of a map each image shows"),
    "serve": ("serve", "answer over HTTP which place of a map pictures show"),
    "evaluate": ("evaluate", "measure recall, precision and speed on images with ground truth"),
    "calibrate": ("calibrate", "fit the confidence of a map's answers by asking it about its own places"),
    "train": ("train", "fine-tune the last blocks of the model on places of your own"),
    "demo": (
        "demo",
        "drive a simulated robot twice through a building and localise the second drive in a map of the first",
    ),
    "bench": ("bench", "measure speed, size and accuracy on this machine, beside other ways to do the same"),
    "render": ("render", "render places of simulated buildings, each from several poses, as images to train on"),
    "doctor": ("doctor", "say what this machine has and what is missing"),
    "schema": ("schema", "print the JSON schema of what a command prints with --json"),
    "completion": ("completion", "print a script by which bash and zsh complete this command"),
}
"""Command to its module in this package and what it does, in the order of `--help`."""


def make_parser(named: str | None = None) -> argparse.ArgumentParser:
    """The whole command line; with a name, only that command has its options, and no other module is loaded for it."""
    parser = Parser(
        prog="effovpr",
        description="Visual place recognition with EffoVPR: build maps, query them, evaluate, train, run the demo.",
        epilog="exit codes: 0 done, 1 the work failed, 2 wrong usage. Results go to stdout, the log to stderr.",
    )
    parser.add_argument("--version", action="version", version=f"effovpr {version()}")
    parser.add_argument("-v", "--verbose", action="store_true", help="log what is chosen automatically")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (module, summary) in COMMANDS.items():
        if named is None or name == named:
            import_module(f"effovpr_ros.cli.{module}").add_parser(commands, summary)
        else:
            commands.add_parser(name, help=summary, add_help=False)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given:
        parser = make_parser("")
        parser.print_help(sys.stderr)
        parser.exit(WRONG_USAGE)
    # Reports name the command that made them.
    named = next((word for word in given if not word.startswith("-")), "")
    options = make_parser(named).parse_args(given, argparse.Namespace(command_line=shlex.join(("effovpr", *given))))
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
