"""One environment for all tests of it; without `make compose-test`, which makes the images, none is collected."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.project import PORTS, Project
from tests.image.commands import CommandError
from tests.image.engine import Docker
from tests.support.chat import Chat
from tests.support.waiting import free_port

if "OPENGUILD_COMPOSE" not in os.environ:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Everything up and healthy."""
    docker = Docker(Path(os.environ["OPENGUILD_IMAGE_SOCKET"]))
    ports = {service: free_port() for service in PORTS}
    project = Project(docker, os.environ["OPENGUILD_COMPOSE"], tmp_path_factory.mktemp("compose"), ports)
    try:
        with project.health_watched():
            project.up()
        yield project
    except CommandError:
        sys.stderr.write(project("logs", "--tail", "20"))
        raise
    finally:
        project.down("--volumes")


@pytest.fixture
def chat(project: Project) -> Iterator[Chat]:
    """A client of the published port."""
    client = Chat(f"http://127.0.0.1:{project.ports['server']}")
    yield client
    client.close()
