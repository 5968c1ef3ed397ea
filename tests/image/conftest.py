"""What the tests of the image share; without `make image-test`, which builds it, none is collected."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from openguild_runtime.embedded import EmbeddedNats
from tests.image.container import DRAIN, MIGRATION_MEMORY, SERVER_MEMORY, Container, Secrets
from tests.image.engine import Docker
from tests.support.databases import Databases
from tests.support.server import SIGNING_KEY
from tests.support.waiting import free_port, wait_until

if "OPENGUILD_IMAGE" not in os.environ:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def docker() -> Docker:
    return Docker(Path(os.environ["OPENGUILD_IMAGE_SOCKET"]))


@pytest.fixture(scope="session")
def image() -> str:
    return os.environ["OPENGUILD_IMAGE"]


@pytest.fixture(scope="module")
def secrets(docker: Docker, databases: Databases, nats_server: EmbeddedNats) -> Iterator[Secrets]:
    """Of a database without a schema."""
    with databases.database("template1") as url:
        yield Secrets(
            docker.socket.parent / "secrets",
            DATABASE_URL=url, NATS__URL=nats_server.url, SESSION__SIGNING_KEY=SIGNING_KEY,
        )  # fmt: skip


@pytest.fixture(scope="module")
def migration(docker: Docker, image: str, secrets: Secrets) -> Container:
    """A container that has migrated the schema, or not."""
    container = Container(docker, image, "migrate", memory=MIGRATION_MEMORY, secrets=secrets, settings={})
    container.wait()
    return container


@pytest.fixture(scope="module")
def ports() -> tuple[int, int]:
    """Of the server and of its metrics."""
    return free_port(), free_port()


@pytest.fixture(scope="module")
def server(docker: Docker, image: str, secrets: Secrets, migration: Container, ports: tuple[int, int]) -> Container:
    """A server that is ready."""
    port, metrics = ports
    probe = f"openguild-server probe --only live http://127.0.0.1:{port}"  # the image's own asks port 8080
    container = Container(
        docker, image, memory=SERVER_MEMORY, secrets=secrets, options=("--health-cmd", probe, "--health-interval", "3s"),
        settings={"HOST": "127.0.0.1", "PORT": port, "METRICS__BIND_ADDR": f"127.0.0.1:{metrics}", **DRAIN},
    )  # fmt: skip
    wait_until(lambda: container.logged("serving") or not container.state()["Running"], what=container.output)
    return container
