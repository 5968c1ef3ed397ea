"""The benchmarks by one command: what there is, a run of it, two commits side by side.

  python -m benchmarks list
  python -m benchmarks run load --only openguild,picows --quick
  python -m benchmarks run http --only post,page --rounds 10
  python -m benchmarks compare main HEAD --only post,page

What is not installed is named and skipped: pip install -e '.[bench]' installs the Python peers.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.lab.program import RefusedError, positive, program
from benchmarks.lab.suites import SUITES, Asked, jobs, peers, run


def _list() -> int:
    lines = []
    for name, suite in SUITES.items():
        lines.append(f"{name:10} {suite.text}")
        try:
            for peer, lacking in peers(suite).items():
                lines.append(f"{'':12}{peer}{'' if lacking is None else f' (skipped here: {lacking})'}")
            if names := jobs(suite):
                lines.append(f"{'':12}jobs: {', '.join(names)}")
        except ModuleNotFoundError as missing:
            lines.append(f"{'':12}its peers: {missing.name} is not installed: pip install -e '.[bench]'")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _asked(given: argparse.Namespace) -> Asked:
    only = tuple(part.strip() for part in given.only.split(",") if part.strip())
    return Asked(only=only, quick=given.quick, rounds=given.rounds, save=getattr(given, "save", False))


def _parser() -> argparse.ArgumentParser:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, formatter_class=shape)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the suites, their peers, and which of them cannot run here")
    running = commands.add_parser("run", help="run a suite")
    running.add_argument("suite", choices=SUITES)
    running.add_argument("--save", action="store_true", help="keep the results in benchmarks/results")
    comparing = commands.add_parser(
        "compare", help="two commits side by side, alternating, each in a work tree of its own"
    )
    comparing.add_argument("before", help="a commit, a branch or a tag")
    comparing.add_argument("after", help="another one")
    for command in (running, comparing):
        command.add_argument("--only", default="", help="names of peers or jobs, with commas; `list` has them")
        command.add_argument("--quick", action="store_true", help="small windows, few rounds: does it run at all?")
        command.add_argument("--rounds", type=positive, help="how often each takes its turn")
    return parser


def main() -> int:
    """Run a command and return the exit status."""
    given = _parser().parse_args()
    try:
        match given.command:
            case "list":
                return _list()
            case "run":
                return run(given.suite, _asked(given))
            case _:
                from benchmarks.lab.compare import compare

                return compare(given.before, given.after, _asked(given))
    except ModuleNotFoundError as missing:
        raise RefusedError(f"{missing.name} is not installed: pip install -e '.[bench]'") from missing


if __name__ == "__main__":
    program(main)
