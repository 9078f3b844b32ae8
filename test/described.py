"""What a command printed with `--json`, held against the JSON schema of the reference."""

from __future__ import annotations

import json
from typing import Any

from jsonschema import Draft202012Validator

from effovpr_ros.cli.outputs import output_schema


def described(command: str, printed: str) -> Any:
    """The object; fails where a field is missing, of another type, or not in the schema."""

    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} is no JSON")

    found = json.loads(printed, parse_constant=refuse)
    faults = list(Draft202012Validator(output_schema(command, closed=True)).iter_errors(found))
    assert not faults, "\n".join(f"{fault.json_path}: {fault.message[:300]}" for fault in faults)
    return found
