"""`python -m tests.scenarios.failover --rate 500 --reads 100000`: both scenarios with fsync on; takes some minutes."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from openguild_runtime.embedded import EmbeddedNats
from tests.scenarios.failover.run import authors_of, fail_over, read_own, staged


async def nothing() -> None:
    """Do nothing between the promotion and the end."""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=500.0, help="posts a second")
    parser.add_argument("--secs", type=float, default=20.0, help="of posts before the kill, and after the promotion")
    parser.add_argument("--reads", type=int, default=100_000, help="reads of one's own write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="og-failover-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        nats = EmbeddedNats(directory / "nats")
        nats.start()
        try:
            with staged(directory, nats_url=nats.url, fsync=True) as stage:
                authors = authors_of(stage)
                own = asyncio.run(read_own(stage, authors, arguments.reads)) if arguments.reads else None
                sys.stdout.write(f"{own}\n")
                sys.stdout.flush()
                outcome = asyncio.run(fail_over(stage, authors, rate=arguments.rate, secs=arguments.secs, then=nothing))
        finally:
            nats.stop()
    sys.stdout.write(f"{outcome}\n")
    return 0 if outcome.is_good and (own is None or own.missed == 0) else 1


if __name__ == "__main__":
    raise SystemExit(main())
