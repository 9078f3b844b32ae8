"""Options that several commands share."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from effovpr_ros.cli.main import COMMANDS, make_parser


def test_help_names_the_defaults_that_tell_something(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        make_parser().parse_args(["map", "build", "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "0: every frame (default: 0.0)" in printed
    assert "in one forward pass (default: 8)" in printed
    for nothing in ("(default: )", "(default: None)", "(default: False)", "(default: [''])"):
        assert nothing not in printed


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["fly"], []])
def test_what_computes_nothing_loads_nothing_to_compute_with(arguments: list[str]):
    program = (
        "import sys\nfrom effovpr_ros.cli.main import main\n"
        f"try:\n    main({arguments})\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'cv2', 'scipy', 'faiss', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", ["map", "query", "serve", "doctor", "completion"])
def test_help_of_what_robots_are_set_up_with_loads_no_network(name: str):
    program = (
        f"import sys\nfrom effovpr_ros.cli.main import make_parser\nmake_parser({name!r}).format_help()\n"
        "print(sorted({'torch', 'scipy', 'faiss', 'rosbags', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_help_lists_what_the_commands_say_of_themselves():
    whole = make_parser()
    alone = {name: make_parser(name) for name in COMMANDS}
    assert whole.format_help() == make_parser("").format_help()
    for name, parser in alone.items():
        assert parser.format_help() == whole.format_help()
        # Only the one that is named takes options.
        made = next(item for item in parser._actions if isinstance(item, argparse._SubParsersAction)).choices
        assert [other for other, sub in made.items() if len(sub._actions) > 0] == [name]
