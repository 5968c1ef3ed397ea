"""The resources that 10 thousand, 1 million and 100 million users need: `python -m benchmarks run capacity`.

python -m benchmarks.capacity                       # the table, from the committed unit costs
python -m benchmarks.capacity --users 50000 --set readers=200 --set core_price=18
python -m benchmarks.capacity --measure --save      # measure the unit costs, check the model by a mixed load: two minutes
python -m benchmarks.capacity --replicas            # messages and queries of a replica among 3 to 100, simulated
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from benchmarks.capacity.check import Checked, check
from benchmarks.capacity.model import Machines, Needs, Profile, needs
from benchmarks.capacity.units import Units, measure, staged
from benchmarks.lab import results
from benchmarks.lab.program import positive, program

USERS = (10_000, 1_000_000, 100_000_000)
MAX_USERS = 10**10  # more than all people
REPLICAS = (3, 10, 30, 100)
SECS = 6.0  # for each operation
S = TypeVar("S", bound=msgspec.Struct)


def fixed() -> dict[str, float]:
    """Return the unit costs that other suites measure, from their committed results."""
    load, http, gateway = (
        json.loads((results.RESULTS / f"{name}.json").read_text()) for name in ("load", "http", "gateway")
    )
    return {
        "delivery_us": load["whole"]["cpu_us"],
        "connection_bytes": load["memory"]["server"]["bytes"],
        "subscription_bytes": gateway["memory, bytes: 1,000 sockets with 100 logs of their own"]["subscription"],
        "login_us": http["jobs"]["login"]["openguild"]["cpu_us"]["median"],
    }


def changed(assumed: S, given: Sequence[str]) -> S:
    """Return the assumptions with those of `name=value` that they have. Raises msgspec.ValidationError beyond a bound."""
    values = {name: value for name, _, value in (pair.partition("=") for pair in given)}
    own = {name: value for name, value in values.items() if name in assumed.__struct_fields__}
    return msgspec.convert({**msgspec.structs.asdict(assumed), **own}, type(assumed), strict=False)


def table(found: Sequence[Needs]) -> str:
    """Return a Markdown table with a column for each number of users."""
    rows = [["users", *(f"{each.users:,}" for each in found)]]
    for name in Needs.__struct_fields__[1:]:
        rows.append([name.replace("_", " "), *(_shown(getattr(each, name)) for each in found)])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "| --- |" + " ---: |" * len(found), *lines[1:]])


def users(text: str) -> int:
    number = positive(text)
    if number > MAX_USERS:
        raise argparse.ArgumentTypeError(f"{text}: at most {MAX_USERS:,}")
    return number


def secs(text: str) -> float:
    number = float(text)
    if not 0.1 <= number <= 600:
        raise argparse.ArgumentTypeError(f"{text}: from 0.1 to 600")
    return number


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:,.2g}"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.capacity", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--users",
        type=users,
        action="append",
        help="instead of 10 thousand, 1 million and 100 million; may be repeated",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an assumption, of Profile or Machines in benchmarks/capacity/model.py; may be repeated",
    )
    parser.add_argument("--measure", action="store_true", help="the unit costs, anew")
    parser.add_argument("--secs", type=secs, default=SECS, help="of each operation that is measured")
    parser.add_argument("--save", action="store_true", help="keep the unit costs in benchmarks/results/capacity.json")
    parser.add_argument("--replicas", action="store_true", help="count messages and queries among 3 to 100, simulated")
    given = parser.parse_args()
    if given.save and not given.measure:
        parser.error("--save keeps what --measure measures")
    if not all("=" in pair for pair in given.set):
        parser.error("--set takes NAME=VALUE")
    unknown = {pair.partition("=")[0] for pair in given.set} - {*Profile.__struct_fields__, *Machines.__struct_fields__}
    if unknown:
        known = ", ".join((*Profile.__struct_fields__, *Machines.__struct_fields__))
        parser.error(f"no assumption: {', '.join(sorted(unknown))}; there are {known}")
    try:
        profile, machines = changed(Profile(), given.set), changed(Machines(), given.set)
    except msgspec.ValidationError as wrong:
        parser.error(str(wrong).replace("`$.", "`"))
    if given.replicas:
        from benchmarks.capacity.many_replicas import measure as among

        sys.stdout.write("| replicas | messages of logs | queries | told to all |\n| ---: | ---: | ---: | ---: |\n")
        for count in REPLICAS:
            each = among(count)
            sys.stdout.write(f"| {count} | {each.messages:.1f} | {each.queries:.1f} | {each.broadcasts:.1f} |\n")
        return 0
    if given.save:
        results.require_writable()
    stamp = results.stamped({})
    units, checked = _measured(given.secs) if given.measure else (_kept(), None)
    if checked is not None:
        sys.stdout.write(f"{units}\n{checked}\n")
    if given.save:
        kept: dict[str, Any] = {"units": msgspec.to_builtins(units), "check": msgspec.to_builtins(checked)}
        results.write("capacity", stamp | kept)
    sys.stdout.write(table([needs(users, units, profile, machines) for users in given.users or USERS]) + "\n")
    return 0


def _kept() -> Units:
    return msgspec.convert(json.loads((results.RESULTS / "capacity.json").read_text())["units"], Units)


def _measured(secs: float) -> tuple[Units, Checked]:
    with tempfile.TemporaryDirectory(prefix="og-capacity-") as name:
        Path(name).chmod(0o755)
        with staged(Path(name)) as stage:
            units = asyncio.run(measure(stage, secs, fixed()))
            return units, asyncio.run(check(stage, units, 2 * secs))


if __name__ == "__main__":
    program(main)
