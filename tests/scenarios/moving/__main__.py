"""`python -m tests.scenarios.moving [--history 3000 --replicas 1 --moves 4 --kills 2 --seed 1]` (`make guild-moves`)."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import anyio

from tests.scenarios.moving.run import Plan, run_plan


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios.moving")
    for name in ("history", "replicas", "moves", "kills", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Plan, name))
    options = vars(parser.parse_args())
    with tempfile.TemporaryDirectory(prefix="openguild-moving-") as directory:
        outcome = anyio.run(run_plan, Plan(**options), Path(directory), lambda line: print(line, flush=True))
    sys.stdout.write(json.dumps(asdict(outcome), indent=2) + "\n")
    return int(not outcome.is_good)


if __name__ == "__main__":
    raise SystemExit(main())
