"""The environment of compose.yaml on an engine of its own, under another name and on other ports."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from tests.compose.stand_ins import COMPOSE_FILE, NOT_TO_BE_HAD
from tests.image.commands import CommandError, end, run
from tests.image.engine import Docker
from tests.support.server import ROOT

PROGRAMS = (ROOT / "build/python_tools/bin/docker-compose", "docker-compose")  # deploy/ci/tools.sh installs the first
OLDEST = 2  # the first one with `condition` in the file and `!override` is 2.24
NAME = "openguild-test"
PORTS = {"server": 8080, "prometheus": 9090, "alertmanager": 9093}  # published; inside


def find_program() -> str | None:
    """Return Compose of version 2 or newer; None: there is none here."""
    for program in PROGRAMS:
        found = shutil.which(program)
        if found is None:
            continue
        try:
            version = run(found, "version", "--short").strip().removeprefix("v")
        except CommandError:
            continue
        if int(version.partition(".")[0]) >= OLDEST:
            return found
    return None


class Service(NamedTuple):
    """The container of a service."""

    id: str
    state: dict[str, Any]
    restarts: int

    @property
    def health(self) -> str:
        return str(self.state.get("Health", {}).get("Status", "none"))

    def moment(self, name: str) -> float:
        """When it `StartedAt` or `FinishedAt`, in seconds of the epoch."""
        return datetime.fromisoformat(self.state[name][:26].rstrip("Z") + "+00:00").timestamp()


class Project:
    """`ports`: of this machine, by service."""

    def __init__(self, docker: Docker, program: str, directory: Path, ports: dict[str, int]) -> None:
        self._docker = docker
        self._program = program
        self._events = directory / "events"
        self._override = directory / "override.yaml"
        self.ports = ports
        lines = [
            f'  {service}: {{ports: !override ["127.0.0.1:{port}:{PORTS[service]}"]}}'
            for service, port in ports.items()
        ]
        self._override.write_text("\n".join(["services:", *lines, ""]))
        listed = self("config", "--services").split()
        self.services = [name for name in listed if name not in NOT_TO_BE_HAD]

    def __call__(self, *arguments: str) -> str:
        """Run a command of Compose; what it prints. Raises CommandError."""
        files = ("--file", COMPOSE_FILE, "--file", self._override)
        return run(self._program, "--project-name", NAME, *files, *arguments, env=self._docker.environment)

    @contextmanager
    def health_watched(self) -> Iterator[None]:
        """Note when services become healthy: the engine remembers five checks of each only."""
        command = ("docker", "events", "--filter", "event=health_status: healthy", "--format", "{{json .}}")
        with self._events.open("w") as file:
            process = subprocess.Popen(
                command, env=os.environ | self._docker.environment, stdout=file, text=True, start_new_session=True
            )
            try:
                yield
            finally:
                end(process, signal.SIGTERM)

    def first_healthy(self, name: str) -> float:
        """Return when a health check of a service first passed, in seconds of the epoch."""
        events = [json.loads(line) for line in self._events.read_text().splitlines()]
        label = "com.docker.compose.service"
        return min(event["timeNano"] / 1e9 for event in events if event["Actor"]["Attributes"].get(label) == name)

    def up(self, *services: str) -> None:
        """Start these, by default all, with what they need, and wait until they are healthy. The images are there already."""
        options = ("--detach", "--wait", "--wait-timeout", "180", "--no-build", "--pull", "never")
        self("up", *options, *(services or self.services))

    def down(self, *options: str) -> None:
        """Remove the containers; with `--volumes` the data too."""
        self("down", "--timeout", "30", *options)

    def service(self, name: str) -> Service:
        """Return the container of a service, running or not."""
        container = self("ps", "--all", "--quiet", name).strip()
        (found,) = json.loads(self._docker("inspect", container))
        return Service(container, found["State"], found["RestartCount"])

    def run_in(self, service: str, *command: str) -> str:
        """Run a command in the container of a service, as an operator does; what it prints. Raises CommandError."""
        return self("exec", "-T", service, *command)

    def records(self, service: str) -> list[dict[str, Any]]:
        """Return the log of a service whose lines are JSON."""
        return [json.loads(line) for line in self("logs", "--no-log-prefix", service).splitlines()]

    def messages(self, service: str) -> Sequence[str]:
        """Return the messages of that log."""
        return [record["message"] for record in self.records(service)]
