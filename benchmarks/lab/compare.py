"""Compare two commits: a server of each runs every job of the HTTP suite, in alternation.

Each commit is checked out into a work tree under build/compare, where its extension modules are built. The work tree
is kept for later comparisons. The benchmark code of this checkout drives both servers, so only the servers differ.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.http.jobs import JOBS, Household
from benchmarks.http.measure import QUICK, has_users, window
from benchmarks.http.servers import Target
from benchmarks.lab.figures import ratio, verdict
from benchmarks.lab.program import RefusedError
from benchmarks.lab.progress import Progress
from benchmarks.lab.stamp import stamp, told
from benchmarks.lab.suites import Asked, chosen, require
from benchmarks.load.actors import RealServer
from tests.support.server import ServerProcess

ROOT = Path(__file__).parents[2]
TREES = ROOT / "build/compare"
ROUNDS = 10


def named(revision: str) -> str:
    """Return the short hash of a revision."""
    try:
        return _git("rev-parse", "--short=12", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    except RuntimeError as unknown:
        raise RefusedError(f"no commit: {revision}") from unknown


def checked_out(name: str) -> Path:
    """Return the work tree of a commit. Creates it if there is none, and builds its extension modules."""
    tree = TREES / name
    if not tree.exists():
        TREES.mkdir(parents=True, exist_ok=True)
        _git("worktree", "add", "--force", "--quiet", "--detach", str(tree), name)  # it may have been removed by hand
    build = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=tree, capture_output=True, text=True, check=False
    )  # fmt: skip
    if build.returncode:
        raise RefusedError(f"{name} cannot be built: {build.stderr[-2000:]}")
    return tree


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def unknown_settings(directory: Path, tree: Path) -> tuple[str, ...]:
    """Return the settings that every benchmark server gets and that the older commit in `tree` does not have."""
    try:
        known = (tree / "docs/configuration.md").read_text()
    except FileNotFoundError:
        raise RefusedError(f"{tree.name} is too old to be compared: it has no docs/configuration.md") from None
    return tuple(name for name in ServerProcess(directory).settings if "__" in name and name not in known)


class CommitServer(RealServer):
    """A server of another work tree, with its own PostgreSQL and nats-server, as the schemas of commits may differ."""

    def __init__(self, directory: Path, tree: Path) -> None:
        directory.mkdir()
        super().__init__(
            directory,
            {"PYTHONPATH": str(tree)},
            unknown_settings(directory, tree),
            SESSION__MAX_LOGINS_PER_ACCOUNT_PER_WINDOW=1_000_000,
        )


def compare(before: str, after: str, asked: Asked) -> int:
    """Print the ratio of the CPU per request of `after` to that of `before`, for each job."""
    require(asked.only, tuple(JOBS))
    jobs = chosen(tuple(JOBS), asked.only)
    rounds = asked.rounds or (3 if asked.quick else ROUNDS)
    names = [named(revision) for revision in (before, after)]
    made = stamp()
    if made["commit"].endswith("+"):
        print(
            "What is not committed in this work tree is in neither server, only in what drives them.", file=sys.stderr
        )
    trees = [(name, checked_out(name)) for name in names]
    progress = Progress(4 + 2 * (rounds + 1) * len(jobs))
    costs: dict[str, tuple[list[float], list[float]]] = {job: ([], []) for job in jobs}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        targets: list[Target] = []
        households: list[Household | None] = []
        for place, (commit, tree) in enumerate(trees):
            progress.step(f"start {commit}")
            server = CommitServer(directory / str(place), tree)
            stack.callback(server.close)
            targets.append(Target(commit, server.server.port, server.pid))
        for target in targets:
            progress.step(f"{target.name}: users, channels, messages")
            households.append(Household(target) if has_users("openguild", jobs) else None)
        for turn in range(rounds + 1):
            for job in jobs:
                count = max(8, JOBS[job].count // (QUICK if asked.quick or not turn else 1))
                for place in (0, 1) if turn % 2 else (1, 0):  # each goes first in every other round
                    progress.step(f"{job}: {trees[place][0]}")
                    line = window(targets[place], households[place], job, count, directory)
                    if turn:
                        costs[job][place].append(line["cpu_us"])
    progress.end()
    print(f"CPU of the server per request, {names[1]} against {names[0]}, {rounds} rounds; 95% confidence")
    for job, (old, new) in costs.items():
        found = ratio(new, old)
        interval = f"({found['low']:.3f} to {found['high']:.3f})" if rounds > 1 else "(no interval of one round)"
        print(f"{job:14} {found['ratio']:.3f}  {interval}  {verdict(found)}".rstrip())
    print(f"Driven by: {told(made)}")
    return 0
