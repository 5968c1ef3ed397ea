"""Two commits side by side: a server of each takes its turn with each job of the HTTP suite.

Each commit is checked out into a work tree under build/compare, with its compiled parts built there, and stays for
the next time. Both are driven by this checkout's benchmark, so that only the server differs.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.http.jobs import JOBS, Household
from benchmarks.http.measure import QUICK, window
from benchmarks.http.servers import Target
from benchmarks.lab.figures import ratio, verdict
from benchmarks.lab.program import RefusedError
from benchmarks.lab.progress import Progress
from benchmarks.lab.suites import Asked, chosen, require
from benchmarks.load.actors import RealServer

ROOT = Path(__file__).parents[2]
TREES = ROOT / "build/compare"
ROUNDS = 10


def checked_out(revision: str) -> tuple[str, Path]:
    """Return the short hash of a revision and its work tree, which is made and built where it is not there."""
    try:
        name = _git("rev-parse", "--short=12", "--verify", f"{revision}^{{commit}}")
    except RuntimeError as unknown:
        raise RefusedError(f"no commit: {revision}") from unknown
    tree = TREES / name
    if not tree.exists():
        TREES.mkdir(parents=True, exist_ok=True)
        _git("worktree", "add", "--force", "--quiet", "--detach", str(tree), name)  # it may have been removed by hand
    build = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=tree, capture_output=True, text=True, check=False
    )  # fmt: skip
    if build.returncode:
        raise RuntimeError(f"{name} cannot be built: {build.stderr[-2000:]}")
    return name, tree


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


NEWER = ("MESSAGING__MAX_QUERIES_PER_USER_PER_WINDOW",)  # settings of the benchmarks that older commits do not know


class CommitServer(RealServer):
    """A server of another work tree, with a PostgreSQL and a nats-server of its own: commits may differ in their schema."""

    def __init__(self, directory: Path, tree: Path) -> None:
        directory.mkdir()
        known = (tree / "docs/configuration.md").read_text()
        super().__init__(
            directory,
            {"PYTHONPATH": str(tree)},
            tuple(name for name in NEWER if name not in known),
            SESSION__MAX_LOGINS_PER_ACCOUNT_PER_WINDOW=1_000_000,
        )


def compare(before: str, after: str, asked: Asked) -> int:
    """Print the ratio of the CPU per request of `after` to that of `before`, for each job."""
    require(asked.only, tuple(JOBS))
    jobs = chosen(tuple(JOBS), asked.only)
    rounds = asked.rounds or (3 if asked.quick else ROUNDS)
    trees = [checked_out(revision) for revision in (before, after)]
    progress = Progress(4 + 2 * (rounds + 1) * len(jobs))
    costs: dict[str, tuple[list[float], list[float]]] = {job: ([], []) for job in jobs}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        servers: list[RealServer] = []
        try:
            for place, (commit, tree) in enumerate(trees):
                progress.step(f"start {commit}")
                servers.append(CommitServer(directory / str(place), tree))
            targets = [Target(trees[at][0], server.server.port, server.pid) for at, server in enumerate(servers)]
            households = [Household(target) for target in targets]
            for turn in range(rounds + 1):
                for job in jobs:
                    count = max(8, JOBS[job].count // (QUICK if asked.quick or not turn else 1))
                    for place in (0, 1) if turn % 2 else (1, 0):  # each goes first in every other round
                        progress.step(f"{job}: {trees[place][0]}")
                        line = window(targets[place], households[place], job, count, directory)
                        if turn:
                            costs[job][place].append(line["cpu_us"])
        finally:
            for server in servers:
                server.close()
    progress.end()
    print(f"CPU of the server per request, {trees[1][0]} against {trees[0][0]}, {rounds} rounds; 95% confidence")
    for job, (old, new) in costs.items():
        found = ratio(new, old)
        interval = f"({found['low']:.3f} to {found['high']:.3f})" if rounds > 1 else "(no interval of one round)"
        print(f"{job:14} {found['ratio']:.3f}  {interval}  {verdict(found)}".rstrip())
    return 0
