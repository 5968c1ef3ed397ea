"""A Docker engine of its own: socket, images and state lie in one directory, and nothing is left of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.image.commands import CommandError, end, run

START_SECS = 30.0
POLL_SECS = 0.1
INIT = "docker-init"  # of Docker, not the image's
KEY = Path("/etc/docker/key.json")  # an engine of this age writes it, wherever else its state is


class NoEngineError(Exception):
    """No engine can be started here; the text has the reason."""


class Docker:
    """The `docker` program, for the engine at this socket, without the settings of the account."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket

    def __call__(self, *arguments: str | Path, shown: bool = False) -> str:
        """Run a command; what it says. Raises CommandError."""
        return run("docker", *arguments, env=self.environment, shown=shown).strip()

    @property
    def environment(self) -> dict[str, str]:
        """What leads a client to this engine."""
        return {
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_CONFIG": str(self.socket.parent / "client"),
            "DOCKER_BUILDKIT": "0",
        }


@contextmanager
def temporary_directory(directory: Path) -> Iterator[Path]:
    """Make it, and remove it and every mount below it at the end."""
    directory.mkdir(mode=0o711)  # the servers' account passes through
    try:
        yield directory
    finally:
        for mount in _mounts_below(directory):
            run("umount", "--lazy", mount)
        shutil.rmtree(directory)


@contextmanager
def engine(directory: Path) -> Iterator[Docker]:
    """Run `dockerd` without networks of its own. Raises NoEngineError."""
    had_key = KEY.exists()
    (directory / "daemon.json").write_text("{}")
    command: list[str | Path] = [
        "dockerd", "--config-file", directory / "daemon.json", "--data-root", directory / "data",
        "--exec-root", directory / "exec", "--pidfile", directory / "pid", "--host", f"unix://{directory / 'socket'}",
        "--iptables=false", "--ip-masq=false", "--ip-forward=false", "--bridge=none",
    ]  # fmt: skip
    docker = Docker(directory / "socket")
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, text=True, start_new_session=True)
    try:
        _wait_until_it_answers(docker, process, directory / "log")
        _run_a_container(docker, directory / "init.tar")
        yield docker
    finally:
        with suppress(CommandError):  # it is gone, or was never there
            if containers := docker("ps", "--quiet", "--all").split():
                docker("rm", "--force", *containers)
        end(process, signal.SIGTERM, group=False)
        _end_containerd(directory / "exec/containerd/containerd.pid")
        if not had_key:
            KEY.unlink(missing_ok=True)


def _wait_until_it_answers(docker: Docker, process: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + START_SECS
    while True:
        with suppress(CommandError):
            docker("version")
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise NoEngineError(f"no engine can be started: {log.read_text().strip().rpartition(chr(10))[2]}")
        time.sleep(POLL_SECS)


def _run_a_container(docker: Docker, root: Path) -> None:
    """Where the rights are missing an engine may start and not run anything. Its init is a static program."""
    with tarfile.open(root, "w", dereference=True) as tar:
        tar.add(shutil.which(INIT) or "", "init")
    try:
        docker("run", "--rm", "--network", "host", docker("import", root), "/init", "--version")
    except CommandError as problem:
        raise NoEngineError(f"no container can be run: {str(problem).strip().rpartition(chr(10))[2]}") from problem


def _end_containerd(pid_file: Path) -> None:
    """The engine ends it, unless it had to be killed."""
    with suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int(pid_file.read_text()), signal.SIGKILL)


def _mounts_below(directory: Path) -> list[str]:
    """The mount points below a directory, the deepest first."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return sorted((point for point in points if Path(point).is_relative_to(directory)), reverse=True)
