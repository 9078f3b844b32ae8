"""What bash offers at each word."""

from __future__ import annotations

import subprocess

import pytest

from effovpr_ros.cli.completion import bash_completion
from effovpr_ros.cli.main import make_parser


@pytest.fixture(scope="module")
def script() -> str:
    return bash_completion(make_parser())


@pytest.mark.parametrize(
    ("typed", "offered", "not_offered"),
    [
        (["effovpr", ""], {"map", "query", "doctor", "--version"}, {"build", "--json"}),
        (["effovpr", "map", "b"], {"build"}, {"info", "bench"}),
        (["effovpr", "map", "build", "office", "drive.mcap", "--spac"], {"--spacing-m", "--spacing-deg"}, {"--json"}),
        (["effovpr", "map", "build", "office", "drive.mcap", "--preset", ""], {"auto", "default", "paper"}, {"--json"}),
        (["effovpr", "demo", ""], {"photos", "slam", "--out"}, {"map "}),
        (["effovpr", "query", "map", "--"], {"--page", "--candidates"}, {"--spacing-m"}),
    ],
)
def test_bash_offers_what_fits(script: str, typed: list[str], offered: set[str], not_offered: set[str]):
    words = " ".join(f"'{word}'" for word in typed)
    program = (
        f'{script}\nCOMP_WORDS=({words}); COMP_CWORD={len(typed) - 1}; _effovpr; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = set(done.stdout.split("\n"))
    assert offered <= found and not not_offered & found
