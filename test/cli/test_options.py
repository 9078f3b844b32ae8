"""Options that several commands share."""

from __future__ import annotations

import pytest

from effovpr_ros.cli.main import make_parser


def test_help_names_the_defaults_that_tell_something(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        make_parser().parse_args(["map", "build", "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "0: every frame (default: 0.0)" in printed
    assert "in one forward pass (default: 8)" in printed
    for nothing in ("(default: )", "(default: None)", "(default: False)", "(default: [''])"):
        assert nothing not in printed
