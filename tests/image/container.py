"""The image in a container that is restricted as the server's pods are: the limits are read from deploy/k8s."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from tests.image.engine import Docker
from tests.support.server import ROOT

SECRETS = "/run/secrets/openguild"
USER = 1000
POD = yaml.safe_load((ROOT / "deploy/k8s/base/deployment.yaml").read_text())["spec"]["template"]["spec"]
SERVER_MEMORY = POD["containers"][0]["resources"]["limits"]["memory"]
MIGRATION_MEMORY = POD["initContainers"][0]["resources"]["limits"]["memory"]
TMPFS_SIZE = next(volume["emptyDir"]["sizeLimit"] for volume in POD["volumes"] if "emptyDir" in volume)
TMPFS = POD["containers"][0]["volumeMounts"][1]["mountPath"]
DRAIN = {"DRAIN__DELAY_SECS": 1, "DRAIN__WINDOW_SECS": 2}  # shorter than a pod's
UNITS = {"Mi": 1 << 20, "Gi": 1 << 30}


def size_bytes(quantity: str) -> int:
    """The bytes of a quantity of Kubernetes, such as 16Mi."""
    return int(quantity[:-2]) * UNITS[quantity[-2:]]


class Secrets:
    """A directory that only the image's user reads, as the pods have it; a file is a setting."""

    def __init__(self, directory: Path, **values: str) -> None:
        directory.mkdir(mode=0o500)
        os.chown(directory, USER, USER)
        self.directory = directory
        for name, value in values.items():
            self.write(name, value)

    def write(self, name: str, value: str) -> None:
        path = self.directory / name
        path.write_text(value)
        path.chmod(0o400)
        os.chown(path, USER, USER)

    def settings(self) -> dict[str, str]:
        return {f"{path.name}_FILE": f"{SECRETS}/{path.name}" for path in self.directory.iterdir()}


class Container:
    """Runs from the constructor on; the engine removes it at its end."""

    def __init__(
        self, docker: Docker, image: str, *command: str, memory: str, secrets: Secrets, options: tuple[str, ...] = (),
        settings: Mapping[str, object],
    ) -> None:  # fmt: skip
        self._docker = docker
        variables = secrets.settings() | {name: str(value) for name, value in settings.items()}
        self.id = docker(
            "run", "--detach", "--network", "host", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
            "--memory", str(size_bytes(memory)), "--tmpfs", f"{TMPFS}:mode=1777,size={size_bytes(TMPFS_SIZE)}",
            "--volume", f"{secrets.directory}:{SECRETS}:ro",
            *(part for name, value in variables.items() for part in ("--env", f"OPENGUILD_SERVER__{name}={value}")),
            *options, image, *command,
        )  # fmt: skip

    def run(self, *command: str) -> str:
        """Run another command in it; what it says. Raises CommandError."""
        return self._docker("exec", self.id, *command)

    def signal(self, name: str) -> None:
        """Send a signal to its first process, the init."""
        self._docker("kill", "--signal", name, self.id)

    def wait(self) -> int:
        """Wait for its end; the exit status."""
        return int(self._docker("wait", self.id))

    def state(self) -> dict[str, Any]:
        return dict(json.loads(self._docker("inspect", "--format", "{{json .State}}", self.id)))

    def finished_at(self) -> float:
        """When it ended, in seconds of the epoch."""
        text = self.state()["FinishedAt"]
        return datetime.fromisoformat(text[:26].rstrip("Z") + "+00:00").timestamp()

    def output(self) -> str:
        path = Path(self._docker("inspect", "--format", "{{.LogPath}}", self.id))
        return "".join(json.loads(line)["log"] for line in path.read_text().splitlines())

    def records(self) -> list[dict[str, Any]]:
        """The server's log, every line of which must be JSON."""
        return [json.loads(line) for line in self.output().splitlines()]

    def logged(self, message: str) -> list[dict[str, Any]]:
        """The records with this message."""
        return [record for record in self.records() if record["message"] == message]
