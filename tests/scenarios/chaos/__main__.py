"""Real replicas, PostgreSQL and nats-server behind proxies, and real clients, under a sequence of faults.

`python -m tests.scenarios.chaos [--replicas 3 --clients 200 --posts 16000 --seed 1]` is the long form (`make chaos`);
test_chaos.py runs a short one. Every reader keeps a digest of the received events, which must be that of the log, and folds
them into messages, which must be those that every replica shows.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import anyio

from tests.scenarios.chaos.plan import Plan
from tests.scenarios.chaos.run import run_plan


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios.chaos")
    for name in ("replicas", "clients", "posts", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Plan, name))
    options = vars(parser.parse_args())
    with tempfile.TemporaryDirectory(prefix="openguild-chaos-") as directory:
        outcome = anyio.run(run_plan, Plan(**options), Path(directory), lambda line: print(line, flush=True))
    sys.stdout.write(json.dumps(asdict(outcome), indent=2) + "\n")
    return int(not outcome.is_good)


if __name__ == "__main__":
    raise SystemExit(main())
