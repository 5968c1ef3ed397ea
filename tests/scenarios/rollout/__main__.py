"""`python -m tests.scenarios.rollout --clients 300 --rate 20`: behind nginx, then behind haproxy."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.scenarios.rollout.run import roll


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=300)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--proxy", choices=("nginx", "haproxy"), action="append")
    arguments = parser.parse_args()
    good = True
    for proxy in arguments.proxy or ("nginx", "haproxy"):
        with tempfile.TemporaryDirectory(prefix="og-roll-") as directory:
            Path(directory).chmod(0o755)
            outcome = roll(proxy, arguments.clients, arguments.rate, Path(directory))
        sys.stdout.write(f"{outcome}\n")
        sys.stdout.flush()
        good = good and outcome.is_good
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
