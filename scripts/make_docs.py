#!/usr/bin/env python3
"""Collect the pages of the site: those of docs/, the files at the top, and a reference that is read from the code.

    scripts/make_docs.py OUT        OUT/*.md, for `zensical build`

It needs the package and rclpy, so that it runs in the environment of the tests.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import re
import shutil
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from effovpr_ros import api
from effovpr_ros.cli.json_schema import field_types, meanings
from effovpr_ros.cli.main import make_parser
from effovpr_ros.cli.options import has_default
from effovpr_ros.cli.outputs import OUTPUTS, output_schema
from effovpr_ros.core import errors
from effovpr_ros.core.poses import GeoPoint, Pose
from effovpr_ros.mapping.place import Candidate, Place
from effovpr_ros.recognition.answer import Hint, Recognition
from effovpr_ros.recognition.latency import Latency

ROOT = Path(__file__).resolve().parents[1]
TOP_PAGES = ("CHANGELOG.md", "CONTRIBUTING.md")


def node_configs() -> dict[str, tuple[Any, ...]]:
    """Configuration dataclasses with their defaults, by node; of the detector, what differs from the recogniser's."""
    from effovpr_ros.nodes import loop_closure_detector, place_recognizer
    from effovpr_ros.nodes.parameters import CameraNodeConfig

    return {
        "place_recognizer": (CameraNodeConfig(), *place_recognizer.CONFIGS),
        "loop_closure_detector": (CameraNodeConfig(), *loop_closure_detector.CONFIGS),
    }


def parameter_rows(config: Any) -> Iterator[tuple[str, str]]:
    """Name with default, and meaning with what is allowed, of each parameter of a configuration."""
    for entry in fields(config):
        value, metadata = getattr(config, entry.name), entry.metadata
        default = str(value).lower() if isinstance(value, bool) else str(value)
        allowed = ""
        if "choices" in metadata:
            allowed = ", ".join(map(str, metadata["choices"]))
        elif "min" in metadata:
            allowed = f"{metadata['min']:g} to {metadata['max']:g}"
        yield named(entry.name, default or "empty"), explained(metadata["description"], allowed)


def parameters_page() -> str:
    """Both nodes' parameters."""
    parts = [
        "# Parameters\n\nRead from the configuration dataclasses. `config/localize.yaml` and "
        "`config/loop_closure.yaml` hold all of them with their defaults. Thresholds of recognition and rules of loop "
        "closure may be set while a node runs; the others count when it is configured."
    ]
    for node, configs in node_configs().items():
        parts.append(f"\n## `{node}`")
        for config in configs:
            summary = first_sentence(config)
            parts.append(f"\n### {type(config).__name__}\n\n{summary}\n")
            parts.append(table(("parameter and default", "meaning"), parameter_rows(config)))
    return "\n".join(parts)


def endpoints_page() -> str:
    """Topics, services and actions."""
    from effovpr_ros.nodes import interface

    parts = [
        "# Topics, services and actions\n\nNames are relative to the node's namespace; `~` is the node's own name."
    ]
    for node, endpoints in (("place_recognizer", interface.RECOGNIZER), ("loop_closure_detector", interface.DETECTOR)):
        parts.append(f"\n## `{node}`")
        for kind in ("topic", "service", "action"):
            rows = [(named(item.name, item.type), item.meaning) for item in endpoints if item.kind == kind]
            if rows:
                parts.append(f"\n### {kind.capitalize()}s of `{node}`\n")
                parts.append(table((f"{kind} and type", "meaning"), rows))
    return "\n".join(parts)


def messages_page() -> str:
    """Definitions of messages, services and actions, which explain each field."""
    parts = ["# Messages, services and actions\n\nAs they are defined; units and meanings stand beside the fields."]
    for folder, title in (("msg", "Messages"), ("srv", "Services"), ("action", "Actions")):
        files = sorted((ROOT / folder).glob(f"*.{folder}"))
        if files:
            parts.append(f"\n## {title}")
        for path in files:
            parts.append(f"\n### `effovpr_ros/{folder}/{path.stem}`\n\n```text\n{path.read_text().strip()}\n```")
    return "\n".join(parts)


def commands_page() -> str:
    """Every command with its options."""
    parts = [
        "# Command line\n\nExit codes: 0 done, 1 the work failed, 2 wrong usage. Results go to stdout, the log to "
        "stderr; `--json` prints one object."
    ]
    for name, parser in commands(make_parser()):
        description = (parser.description or "").strip()
        parts.append(f"\n## `{name}`\n\n{markup(description)}\n")
        if parser.epilog:
            parts.append(f"```sh\n{parser.epilog.removeprefix('example: ')}\n```\n")
        rows = []
        for action in parser._actions:
            if isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
                continue
            option = ", ".join(action.option_strings) or (str(action.metavar) if action.metavar else action.dest)
            given = has_default(action) and bool(action.option_strings)
            default = str(action.default) if given else ""
            allowed = ", ".join(map(str, action.choices)) if action.choices else ""
            rows.append((named(option, default), explained(markup(action.help or ""), allowed)))
        parts.append(table(("option and default", "meaning"), rows))
    return "\n".join(parts)


def commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Each command that does something, with its parser."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield parser.prog, parser
    for action in below:
        for sub in dict.fromkeys(action.choices.values()):
            yield from commands(sub)


def json_page() -> str:
    """What `--json` of each command prints: one table for each kind of object."""
    parts = [
        "# JSON\n\nWhat commands print with `--json`, read from the dataclasses that they print. Each has a JSON "
        "schema, which `effovpr schema COMMAND` prints too. A later version may add fields; those here keep their "
        "meaning as long as `schema_version` or `format` stays, where there is one."
    ]
    within: dict[str, Any] = {}
    for command, kind in OUTPUTS.items():
        parts.append(f"\n## `effovpr {command.replace('-', ' ')} --json`\n\n[JSON schema](schemas/{command}.json)\n")
        kinds = typing.get_args(kind) or (kind,)
        for item in kinds:
            parts += record_table(item, within, "###" if len(kinds) > 1 else "")
    parts.append("\n## Objects within\n")
    done: set[str] = set()
    while waiting := [name for name in within if name not in done]:
        for name in waiting:
            done.add(name)
            parts += record_table(within[name], within, "###")
    return "\n".join(parts)


def record_table(kind: type, within: dict[str, Any], heading: str) -> list[str]:
    """What a dataclass is and a table of its fields; those that it holds are added to `within`."""
    summary, texts = meanings(kind)
    title = f"{heading} `{kind.__name__}`\n\n" if heading else ""
    rows = [
        (f"`{name}`<br>{json_type(annotation, within)}", markup(texts.get(name, "")))
        for name, annotation in field_types(kind).items()
    ]
    return [f"{title}{markup(summary)}\n", table(("field and type", "meaning"), rows) + "\n"]


def json_type(annotation: Any, within: dict[str, Any]) -> str:
    """An annotation in the words of JSON; dataclasses link to their tables."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    plain = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null"}
    if annotation in plain:
        return plain[annotation]
    if origin in (types.UnionType, typing.Union):
        return " or ".join(json_type(part, within) for part in parts)
    if origin is tuple and parts[1:] != (Ellipsis,):
        return f"list of {len(parts)}: " + ", ".join(dict.fromkeys(json_type(part, within) for part in parts))
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return f"by name: {json_type(parts[1], within)}"
    if inspect.isclass(origin):
        return f"list of {json_type(parts[0], within)}"
    within.setdefault(annotation.__name__, annotation)
    return f"[{annotation.__name__}](#{annotation.__name__.lower()})"


def python_page() -> str:
    """The Python API, from its docstrings."""
    parts = ["# Python API\n", "```python", *example(api.__doc__ or ""), "```\n"]
    for name in api.__all__:
        parts += described(getattr(api, name), f"api.{name}")
    parts.append("## What an answer is made of\n")
    for kind in (Recognition, Candidate, Place, Pose, GeoPoint, Hint, Latency, api.Built):
        parts += described(kind, kind.__name__)
    parts.append("## Errors\n\nAll are `effovpr_ros.core.errors.EffoVPRError`.\n")
    kinds = [kind for kind in vars(errors).values() if inspect.isclass(kind)]
    parts.append(table(("error", "means"), [(f"`{kind.__name__}`", first_sentence(kind)) for kind in kinds]))
    return "\n".join(parts)


def described(item: Any, name: str) -> list[str]:
    """A class or function with its docstring, and a class's public methods."""
    signature = str(inspect.signature(item)) if not dataclasses.is_dataclass(item) else ""
    if inspect.isclass(item):
        signature = ""
    parts = [f"### `{name}`\n"]
    if signature:
        parts.append(f"```python\n{name.split('.')[-1]}{signature}\n```\n")
    parts.append(docstring(inspect.getdoc(item) or ""))
    if inspect.isclass(item) and item is api.Recognizer:
        for method in ("recognize", "draw", "close"):
            parts += described(getattr(item, method), f"{name}.{method}")
    return parts


def docstring(text: str) -> str:
    """Google's sections as lists."""
    lines, inside = [], False
    for line in text.splitlines():
        if re.fullmatch(r"(Args|Attributes|Returns|Raises):", line):
            lines += ["", f"**{line[:-1]}**", ""]
            inside = line[:-1] in ("Args", "Attributes", "Raises")
        elif inside and (match := re.match(r"    (\w+): (.*)", line)):
            lines.append(f"- `{match[1]}`: {markup(match[2])}")
        else:
            lines.append(f"  {markup(line.strip())}" if inside and line.strip() else markup(line.strip()))
    return "\n".join(lines) + "\n"


def example(text: str) -> list[str]:
    """The indented lines of a docstring."""
    return [line[4:] for line in text.splitlines() if line.startswith("    ")]


def first_sentence(item: Any) -> str:
    """The first line of a docstring."""
    kind = item if inspect.isclass(item) else type(item)
    return markup((inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " "))


def named(name: str, below: str) -> str:
    """A name with what belongs to it below, for a table that a phone can show."""
    return f"`{name}`<br>{breakable(below.replace('_', chr(92) + '_'))}" if below else f"`{name}`"


def breakable(text: str) -> str:
    """Long words, such as types of messages and columns of tables, may be broken where a reader would."""
    marks = r"(?<=[,/=])(?=\w)|(?<=[a-z])(?=[A-Z])"
    return re.sub(r"[^\s`<>]{25,}", lambda word: re.sub(marks, "<wbr>", word[0]), text)


def explained(meaning: str, allowed: str) -> str:
    """A meaning, and what values are allowed."""
    return f"{meaning} ({allowed})" if allowed else meaning


def table(heads: Sequence[str], rows: Any) -> str:
    """A table of Markdown."""
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def markup(text: str) -> str:
    """Text of the code as Markdown: no HTML and no emphasis by chance outside of code."""
    parts = re.split(r"(`[^`]*`)", text.replace("%%", "%"))
    return "".join(
        part if part.startswith("`") else breakable(re.sub(r"(?<![\\])([*_<\[])", r"\\\1", part)) for part in parts
    )


REFERENCE = {
    "parameters.md": parameters_page,
    "topics.md": endpoints_page,
    "messages.md": messages_page,
    "commands.md": commands_page,
    "json.md": json_page,
    "python.md": python_page,
}


def copied(path: Path, text: str) -> str:
    """A page as the site has it: what it links to outside of docs/ is named instead."""

    def link(match: re.Match[str]) -> str:
        words, target = match[1], match[2]
        file = (path.parent / target.split("#")[0]).resolve()
        if target.startswith(("http", "#")) or file.is_relative_to(ROOT / "docs"):
            return match[0]
        name = file.relative_to(ROOT).as_posix()
        if name in TOP_PAGES:
            return f"[{words}]({'../' * len(path.parent.relative_to(ROOT / 'docs').parts)}{name})"
        return f"{words} (`{name}`)" if words.strip("`") != name else f"`{name}`"

    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", link, text)


def main(out: Path) -> None:
    """Write all pages."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(ROOT / "docs", out)
    for path in (ROOT / "docs").rglob("*.md"):
        target = out / path.relative_to(ROOT / "docs")
        target.write_text(copied(path, path.read_text(encoding="utf-8")), encoding="utf-8")
    for name in TOP_PAGES:
        shutil.copy(ROOT / name, out / name)
    (out / "reference").mkdir(exist_ok=True)
    for name, page in REFERENCE.items():
        (out / "reference" / name).write_text(page() + "\n", encoding="utf-8")
    (out / "reference" / "schemas").mkdir()
    for command in OUTPUTS:
        schema = json.dumps(output_schema(command), indent=2)
        (out / "reference" / "schemas" / f"{command}.json").write_text(schema + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
