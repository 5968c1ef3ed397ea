"""A slow connection to PostgreSQL, and a damaged search index."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import pytest
from anyio.abc import TaskStatus
from anyio.from_thread import start_blocking_portal

from tests.incidents.conftest import Incident, Site, pod, run_statements
from tests.support.databases import Databases
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until

POSTERS = 4_000
CHANNELS = 10
DELAY_SECS = 0.2  # for each packet, in each direction


@contextmanager
def proxied(target: int) -> Iterator[Proxy]:
    async def serve(*, task_status: TaskStatus[Proxy]) -> None:
        proxy = Proxy(target)
        async with anyio.create_task_group() as tasks:
            await proxy.start(tasks)
            task_status.started(proxy)
            await anyio.sleep_forever()

    with start_blocking_portal() as portal:
        running, proxy = portal.start_task(serve)
        yield proxy
        running.cancel()


@contextmanager
def crowd(site: Site, posters: int) -> Iterator[None]:
    """Run many clients that post continuously."""
    body = json.dumps({"content": "x"})
    channels = [site.alice.channel(site.guild, f"channel-{number}") for number in range(CHANNELS)]

    async def post(channel: str) -> None:
        request = (
            f"POST /channels/{channel}/messages HTTP/1.1\r\nHost: x\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer {site.alice.token}\r\ncontent-length: {len(body)}\r\n\r\n{body}"
        ).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
        try:
            while True:
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                await reader.readexactly(int(length[1]) if length else 0)
        finally:
            writer.close()

    async def run() -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(posters):
                tasks.start_soon(post, channels[number % CHANNELS])

    with start_blocking_portal() as portal:
        running = portal.start_task_soon(run)
        try:
            yield
        finally:
            running.cancel()


@pytest.fixture(scope="module")
def far(databases: Databases, module_directory: Path) -> Iterator[tuple[Site, Proxy]]:
    """Run a server with a proxy between it and PostgreSQL."""
    with databases.database() as url, proxied(urlsplit(url).port or 0) as proxy:
        through = url.replace(f":{urlsplit(url).port}/", f":{proxy.port}/")
        server = pod(module_directory, DATABASE_URL=through, TRUSTED_PROXIES="127.0.0.1")
        with server.start():
            yield Site(server, url), proxy
            proxy.heal()
            assert server.stop() == 0, server.tail()


def test_the_network_to_postgresql_is_slow(far: tuple[Site, Proxy], walk: Callable[..., Incident]) -> None:
    site, proxy = far
    incident, latency = walk("database-slow", site.server), walk("high-http-latency", site.server)
    with crowd(site, POSTERS):
        proxy.delay_secs = DELAY_SECS
        incident.fires("OpenGuildCommitQueueGrows")
        latency.fires("OpenGuildHttpLatencyHigh")
        latency.fires("OpenGuildHttpLatencyRaised")
        waits = {line.split("|")[0].strip() for line in incident.ask().splitlines()[2:] if "|" in line}
        assert waits <= {"Client"}, "PostgreSQL waits for us, or for nothing"
        wait_until(lambda: re.search(r"commit queue [1-9]", incident.run("og admin top")), what="a commit queue")
        proxy.heal()
    incident.ends("OpenGuildCommitQueueGrows")
    assert "commit queue 0" in incident.run("og admin top")


def waiting(said: str) -> int:
    """Return the number that the section's query prints."""
    number = re.search(r"(?m)^ +(\d+)$", said)
    return int(number[1]) if number is not None else -1


def found(site: Site, word: str) -> bool:
    answer = site.alice.get("/search/messages", params={"q": word})
    return answer.status_code == 200 and word in answer.text


def posted(site: Site) -> float:
    return site.server.metric("openguild_http_requests_total", route="/channels/{channel_id}/messages", status="200")


def restart(site: Site) -> None:
    """Restart the server: it then checks the lag of the index at once, and not only once a minute."""
    assert site.server.stop() == 0
    site.server.start()


def test_the_index_of_search_does_not_advance(far: tuple[Site, Proxy], walk: Callable[..., Incident]) -> None:
    """One of its two tables was restored from a backup and does not match the other."""
    site, proxy = far
    proxy.heal()
    site.server.wait_ready()
    incident = walk("search-fails", site.server)
    site.post("the needle in the haystack")
    before = posted(site)
    with crowd(site, 20):
        wait_until(lambda: posted(site) > before + 2_500, secs=60)
    wait_until(lambda: waiting(incident.ask()) == 0, what=incident.ask)
    run_statements(site.database_url, "UPDATE search_progress SET sequence = 0, messages = 0")
    restart(site)
    incident.fires("OpenGuildSearchBehind")
    assert waiting(incident.ask()) == waiting(incident.ask()) > 2_500, "it does not fall"
    assert "duplicate key value violates unique constraint" in incident.try_row("logs | jq")
    assert "\nready\n" in incident.run("ready")
    assert "TRUNCATE TABLE" in incident.try_row("sql 'TRUNCATE")
    wait_until(lambda: waiting(incident.ask()) == 0, what=incident.ask)
    assert found(site, "needle")
    restart(site)
    incident.ends("OpenGuildSearchBehind")
