"""`openguild-server completion bash|zsh`: a script that completes subcommands, flags and their values in a shell."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import NamedTuple

from openguild_proto.policy.permissions import RANKS
from openguild_runtime.admin.reload import SETTABLE
from openguild_runtime.cli.accounts import COMMANDS
from openguild_runtime.cli.probe import CHECKS
from openguild_runtime.observability.logs import LEVELS

SHELLS = ("bash", "zsh")
FILES = frozenset({"FILE", "PATH"})  # metavars of values that name a file
RANKED = tuple(str(role) for role in RANKS)
VALUES = {
    " --log-format": ("compact", "json"),
    " --storage": ("postgres", "memory"),
    " probe --only": (*CHECKS, "certificate"),
    **{f" {command} --role": RANKED for command in COMMANDS if command.endswith("-role")},
    " admin set": tuple(sorted(SETTABLE)),
    " admin log": tuple(LEVELS),
}  # by the words that precede the value

SCRIPT = """\
_openguild_server() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} path="" words="" i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "$path ${{COMP_WORDS[i]}}" in
        {paths}) path="$path ${{COMP_WORDS[i]}}" ;;
        esac
    done
    COMPREPLY=()
    case "$path $before" in
{values}
    esac
    case "$path" in
{words}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _openguild_server openguild-server
"""
ZSH = "autoload -U +X bashcompinit && bashcompinit\n"


class CommandNode(NamedTuple):
    """A command: the words that lead to it, each after a space, its parser, and its subcommands."""

    path: str
    parser: argparse.ArgumentParser
    subcommands: tuple[str, ...]


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the script for a shell of SHELLS."""
    places = list(_places(parser, ""))
    text = SCRIPT.format(
        paths=" | ".join(f'"{place.path}"' for place in places if place.path),
        values="\n".join(line for place in places for line in _values(place)),
        words="\n".join(f'    "{place.path}") words="{" ".join(_words(place))}" ;;' for place in places),
    )
    return ZSH + text if shell == "zsh" else text


def _places(parser: argparse.ArgumentParser, path: str) -> Iterator[CommandNode]:
    subparsers = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    choices = subparsers[0].choices if subparsers else {}
    yield CommandNode(path, parser, tuple(choices))
    for name, each in choices.items():
        yield from _places(each, f"{path} {name}")


def _words(place: CommandNode) -> list[str]:
    """Return the possible next words: subcommands, choices of an argument, flags."""
    words = [*place.subcommands, *VALUES.get(place.path, ())]
    for action in place.parser._actions:
        if not action.option_strings and action.choices and not place.subcommands:
            words += map(str, action.choices)
        words += [name for name in action.option_strings if name.startswith("--")]
    return words


def _values(place: CommandNode) -> Iterator[str]:
    """Yield a `case` line for the value of each flag that takes one."""
    for action in place.parser._actions:
        for name in action.option_strings:
            if action.nargs == 0:
                continue
            place_of_value = f"{place.path} {name}"
            known = VALUES.get(place_of_value) or tuple(map(str, action.choices or ()))
            is_file = action.metavar in FILES or name.endswith(("-file", "-dir", "-socket"))
            reply = f'COMPREPLY=($(compgen -W "{" ".join(known)}" -- "$word"));' if known else ""
            reply = 'COMPREPLY=($(compgen -f -- "$word"));' if is_file else reply
            yield f'    "{place_of_value}") {reply} return ;;'
