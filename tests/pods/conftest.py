"""PostgreSQL, NATS and a network for pods; without `make pods-test`, which makes the images, none is collected."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.compose.stand_ins import images
from tests.image.container import Secrets
from tests.image.engine import Docker
from tests.pods.manifest import Overlay
from tests.pods.pod import Node
from tests.support.server import SIGNING_KEY
from tests.support.waiting import wait_until

NETWORK = "openguild-test-pods"
SUBNET = "10.87.0.0/24"  # within the trusted proxies of prod, where the load balancer is
DATABASE = "postgresql://openguild:openguild@{}:5432/openguild"

if "OPENGUILD_PODS" not in os.environ:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def overlay() -> Overlay:
    return Overlay("prod")


@pytest.fixture(scope="session")
def docker() -> Docker:
    return Docker(Path(os.environ["OPENGUILD_IMAGE_SOCKET"]))


@pytest.fixture(scope="session")
def network(docker: Docker) -> Iterator[str]:
    """Of the pods and what they need; the load balancer on this machine reaches it."""
    docker("network", "create", "--subnet", SUBNET, NETWORK)
    try:
        yield NETWORK
    finally:
        left = docker("ps", "--quiet", "--all", "--filter", f"network={NETWORK}").split()
        if left:
            docker("rm", "--force", "--volumes", *left)
        docker("network", "rm", NETWORK)


@pytest.fixture(scope="session")
def node(docker: Docker, overlay: Overlay, network: str, tmp_path_factory: pytest.TempPathFactory) -> Node:
    """A database with the schema of the Job, NATS, and the Secret."""

    def serve(name: str, *options: str) -> tuple[str, str]:
        container = docker("run", "--detach", "--network", network, *options, images()[name])
        place = f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}'
        return container, docker("inspect", "--format", place, container)

    accounts = ("USER", "PASSWORD", "DB")
    database, postgres = serve(
        "postgres", *(part for name in accounts for part in ("--env", f"POSTGRES_{name}=openguild"))
    )
    _, nats = serve("nats")
    wait_until(lambda: _is_ready(docker, database), what="PostgreSQL")
    secrets = Secrets(
        tmp_path_factory.mktemp("pods") / "secrets",
        **{"database-url": DATABASE.format(postgres), "nats-url": f"nats://{nats}:4222", "signing-key": SIGNING_KEY},
    )
    node = Node(docker, os.environ["OPENGUILD_PODS"], network, secrets.directory)
    node.run(overlay.migration(), overlay.pod(), "--rm")
    return node


def _is_ready(docker: Docker, container: str) -> bool:
    command = ["docker", "exec", container, "pg_isready", "-h", "127.0.0.1", "-U", "openguild", "-d", "openguild"]
    return (
        subprocess.run(command, env=os.environ | docker.environment, capture_output=True, check=False).returncode == 0
    )


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """A short one, for sockets."""
    with TemporaryDirectory(prefix="og-pods-") as name:
        yield Path(name)
