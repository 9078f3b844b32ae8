"""Says what is wrong with a command's arguments in the voice of all other errors, and what may have been meant."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any, NoReturn

WRONG_USAGE = 2
_BEFORE_COMMAND = ("-v", "--verbose", "--version")
"""Options of `effovpr` itself."""
_ALIKE = 0.1
"""Two options that are so nearly as like a mistyped one may both have been meant."""
_KINDS = {"int": "whole number", "float": "number"}


def later(module: str, name: str) -> Callable[[argparse.Namespace], int]:
    """A function of a module of this package, which is loaded when it is called: help needs nothing that computes."""

    def run(options: argparse.Namespace) -> int:
        code: int = getattr(import_module(f"effovpr_ros.cli.{module}"), name)(options)
        return code

    return run


class Parser(argparse.ArgumentParser):
    """One line that names the fault and the nearest remedy, and one that says where the options are listed."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse, and refuse what is not known here, where the nearest option is known."""
        # First: the value of a mistyped option would be taken for an argument, and another fault be named.
        for option in self._unknown_options(args or ()):
            self.error(self._about_option(option))
        found, left = super().parse_known_args(args, namespace)
        if left:
            self.error(f"nothing is known to do with {' '.join(map(repr, left))}")
        return found, left

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments and exit."""
        words = self.prog.partition(" ")[2]
        start = "effovpr: " + (f"{words}: " if words else "")
        self.exit(WRONG_USAGE, f"{start}{self._in_words(message)}\nsee `{self.prog} --help`\n")

    def _unknown_options(self, args: Sequence[str]) -> Iterator[str]:
        has_commands = self._subparsers is not None
        for given in args:
            if given == "--" or (has_commands and not given.startswith("-")):
                return
            option = given.partition("=")[0]
            # A negative number is a value; the start of an option will do.
            if not re.fullmatch(r"--?[A-Za-z][\w-]*", option) or option[:2] in self._option_string_actions:
                continue
            if not any(known.startswith(option) for known in self._option_string_actions):
                yield option

    def _about_option(self, option: str) -> str:
        if option in _BEFORE_COMMAND:
            return f"{option} goes before the command: {self.prog.replace('effovpr', f'effovpr {option}', 1)}"
        known = [name for name in self._option_string_actions if name.startswith("--")]
        # `--pose_topic` is `--pose-topic`, which a difference of letters alone finds late.
        spelled = option.replace("_", "-").lower()
        close = difflib.get_close_matches(spelled, known, n=2)
        likeness = [difflib.SequenceMatcher(None, spelled, name).ratio() for name in close]
        close = [name for name, ratio in zip(close, likeness, strict=True) if ratio > likeness[0] - _ALIKE]
        return f"unknown option {option}" + _suggestion(close or [name for name in known if spelled[2:] in name][:2])

    def _in_words(self, message: str) -> str:
        if found := re.match(r"the following arguments are required: (.+)", message):
            return "; ".join(self._lacks(name) for name in found[1].split(", "))
        if found := re.match(r"argument (.+?): invalid choice: '(.+?)' \(choose from (.+)\)", message, re.DOTALL):
            choices = [choice.strip(" '") for choice in found[3].split(",")]
            close = difflib.get_close_matches(found[2], choices, n=1)
            return f"{found[1]} {found[2]!r} is none of {', '.join(choices)}{_suggestion(close)}"
        if found := re.match(r"argument (.+?): invalid (\w+) value: (.+)", message, re.DOTALL):
            return f"{found[1]} {found[3]} is no {_KINDS.get(found[2], found[2])}"
        if found := re.match(r"argument (.+?): expected (?:one|at least one) argument", message):
            return f"{found[1]} needs a value"
        if found := re.match(r"argument (.+?): expected (\d+) arguments", message):
            return f"{found[1]} needs {found[2]} values"
        return re.sub(r"^argument ", "", message)

    def _lacks(self, name: str) -> str:
        """That an argument is missing, and what it is."""
        for action in self._actions:
            if name in (action.metavar, action.dest, "/".join(action.option_strings)):
                if isinstance(action, argparse._SubParsersAction):
                    return f"{name} is missing: {', '.join(action.choices)}"
                values: dict[str, Any] = {**vars(action), "prog": self.prog}
                meaning = f": {action.help % values}" if action.help else ""
                return f"{name if action.option_strings else name.upper()} is missing{meaning}"
        return f"{name} is missing"


def _suggestion(close: Sequence[str]) -> str:
    return f"; did you mean {' or '.join(close)}?" if close else ""
