"""The parser of the command line, which reports an error in one line. Only `--help` prints the usage."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NoReturn

USAGE_STATUS = 2
SIMILAR = 0.65  # similarity, at most 1, from which a name is suggested
FEW = 8  # the maximum of names that are all listed
_CHOICE = re.compile(r"argument (?P<what>.+?): invalid choice: '(?P<given>[^']*)' \(choose from (?P<known>.+)\)")


class Parser(argparse.ArgumentParser):
    """Exits with status 2 and one line. `outer` is the parser of which this one parses a subcommand."""

    def __init__(self, *arguments: Any, outer: Parser | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options | {"allow_abbrev": False})
        self._outer = outer
        self.suggest_on_error = False  # Python 3.15 has its own suggestions, with other texts

    def add_subparsers(self, **options: Any) -> Any:
        """Add subcommands with parsers of this class."""
        return super().add_subparsers(**{"parser_class": partial(Parser, outer=self)} | options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, after a check for unknown flags, because argparse would take the value of one for another argument."""
        given = list(sys.argv[1:] if args is None else args)
        for flag in self._own_flags(given):
            if flag not in self._option_string_actions:
                self._exit(f"unknown flag {flag}{self._hint(flag)}")
        return super().parse_known_args(given, namespace)

    def _own_flags(self, given: Sequence[str]) -> Iterator[str]:
        """Yield the flags before a subcommand."""
        has_subcommands = self._subparsers is not None
        waiting = iter(given)
        for argument in waiting:
            if argument == "--":
                return
            if not argument.startswith("--"):
                if has_subcommands:
                    return
                continue
            flag, equals, _ = argument.partition("=")
            yield flag
            action = self._option_string_actions.get(flag)
            if action is not None and action.nargs is None and not equals:
                next(waiting, None)  # its value

    def _hint(self, flag: str) -> str:
        outer = self._outer
        while outer is not None:
            if flag in outer._option_string_actions:
                return f": write it before the subcommand: {outer.prog} {flag} ..."
            outer = outer._outer
        return _meant(flag, list(self._option_string_actions))

    def error(self, message: str) -> NoReturn:
        """Print the error with a suggestion, and exit."""
        choice = _CHOICE.match(message)
        if choice is not None:
            known = [name.strip("' ") for name in choice["known"].split(",")]
            message = f"unknown {choice['what']} {choice['given']}{_meant(choice['given'], known)}"
        self._exit(message)

    def _exit(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: {message}{' See' if message.endswith('?') else '; see'} {self.prog} --help\n")
        raise SystemExit(USAGE_STATUS)


def _meant(given: str, known: list[str]) -> str:
    """Return the closest name, or all names if there are only FEW, as the rest of a sentence."""
    close = difflib.get_close_matches(given, known, n=1, cutoff=SIMILAR)
    if close:
        return f": did you mean {close[0]}?"
    return f": expected one of {', '.join(known)}" if 0 < len(known) <= FEW else ""
