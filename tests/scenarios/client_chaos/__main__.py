"""`python -m tests.scenarios.client_chaos --seeds 20 --first 1 --jobs 4 --client python`: stops at the first seed that fails."""

from __future__ import annotations

import argparse
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import anyio

from tests.scenarios.client_chaos.run import Outcome, run_javascript, run_seed
from tests.support.server import ServerProcess


def run(seed: int, client: str) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="og-chaos-") as directory:
        server = ServerProcess(Path(directory), "--embedded", "--data-dir", f"{directory}/d", "--chaos-seed", str(seed))
        with server.start(ready=False):
            if client == "javascript":
                return run_javascript(seed, server.base_url)
            return anyio.run(run_seed, seed, server.base_url, Path(directory))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--client", choices=("python", "javascript"), default="python")
    parser.add_argument("--jobs", type=int, default=4)
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for seed, outcome in zip(seeds, pool.map(partial(run, client=arguments.client), seeds), strict=True):
            sys.stdout.write(f"seed {seed}: {outcome}\n")
            sys.stdout.flush()
            if not outcome.is_good:
                pool.shutdown(cancel_futures=True)
                return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
