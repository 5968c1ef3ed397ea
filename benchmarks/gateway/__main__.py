"""Gateway sockets in one process: memory of a subscription, CPU of a delivery, a stopped reader.

`python -m benchmarks.gateway [--save]` saves the figures in results/gateway.json. There is no network and no loop: socket pairs,
the core's machines and the compiled flush.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TypeAlias

from benchmarks.gateway.measures import apart, delivery, memory, stopped_reader
from benchmarks.lab.program import positive, program
from benchmarks.lab.results import require_writable, stamped, write

Figures: TypeAlias = dict[str, dict[str, float]]


def measured(sockets: int) -> Figures:
    """Return the results of each measurement. `sockets`: the number of socket pairs."""
    return {
        "memory, bytes: 1,000 sockets with 100 of 100 logs": apart(memory, 1_000, 100, 100),
        "memory, bytes: 1,000 sockets with 100 of 1,000 logs": apart(memory, 1_000, 100, 1_000),
        "memory, bytes: 1,000 sockets with 100 logs of their own": apart(memory, 1_000, 100, 100_000),
        "memory, bytes: 100 sockets with 1,000 of 1,000 logs": apart(memory, 100, 1_000, 1_000),
        "CPU of a delivery, us": apart(delivery, sockets, 15, 100),
        "a reader that stops while 20,000 events pass": apart(stopped_reader, 20, 20_000),
    }


def main(arguments: Sequence[str] | None = None, measure: Callable[[int], Figures] = measured) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__)
    parser.add_argument("--sockets", type=positive, default=200, help="of the measures with socket pairs")
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args(arguments)
    if given.save:
        require_writable()
    stamp = stamped({})
    results = measure(given.sockets)
    for name, figures in results.items():
        print(name)
        for what, figure in figures.items():
            print(f"  {what}: {figure:.2f}")
    if given.save:
        write("gateway", stamp | results)


if __name__ == "__main__":
    program(main)
