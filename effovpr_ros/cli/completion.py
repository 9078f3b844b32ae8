"""`effovpr completion`: a script by which bash completes commands, options and their values."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from effovpr_ros.cli.options import Subparsers, command

_TEMPLATE = """# Completion of effovpr for bash; zsh: autoload -U bashcompinit && bashcompinit, before this.
_effovpr() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" path="" words="" word
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$path$word " in
            {paths}) path="$path$word " ;;
        esac
    done
    case "$path" in
{words}
    esac
    case "$path${{COMP_WORDS[COMP_CWORD-1]}}" in
{values}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o bashdefault -o default -F _effovpr effovpr
"""


def add_parser(commands: Subparsers, summary: str) -> None:
    """Add the command."""
    parser = command(
        commands,
        "completion",
        summary,
        'eval "$(effovpr completion)", or into ~/.local/share/bash-completion/completions/effovpr',
    )
    parser.set_defaults(run=_run)


def _run(_: argparse.Namespace) -> int:
    # It is this command's own parser too.
    from effovpr_ros.cli.main import make_parser

    print(bash_completion(make_parser()), end="")
    return 0


def bash_completion(parser: argparse.ArgumentParser) -> str:
    """The script for a parser: words are looked up in it, so that completing starts no Python."""
    words, values, paths = [], [], []
    for path, node in _nodes(parser, ""):
        subcommands = [name for action in _below(node) for name in action.choices]
        options = [option for action in node._actions for option in action.option_strings if option.startswith("--")]
        positional = [str(value) for action in node._actions if not action.option_strings for value in _choices(action)]
        offered = " ".join((*subcommands, *(positional if not subcommands else ()), *options))
        words.append(f'        "{path}") words="{offered}" ;;')
        values += [
            f'        "{path}{option}") words="{" ".join(map(str, _choices(action)))}" ;;'
            for action in node._actions
            for option in action.option_strings
            if _choices(action)
        ]
        if path:
            paths.append(f'"{path}"')
    return _TEMPLATE.format(paths=" | ".join(paths), words="\n".join(words), values="\n".join(values))


def _nodes(parser: argparse.ArgumentParser, path: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Each parser with the words that lead to it."""
    yield path, parser
    for action in _below(parser):
        for name, below in action.choices.items():
            yield from _nodes(below, f"{path}{name} ")


def _below(parser: argparse.ArgumentParser) -> list[argparse._SubParsersAction[argparse.ArgumentParser]]:
    return [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]


def _choices(action: argparse.Action) -> list[object]:
    return [] if isinstance(action, argparse._SubParsersAction) else list(action.choices or ())
