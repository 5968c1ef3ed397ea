"""What stands in the control log and is not what a replica expects: it serves on (architecture, "Many replicas")."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.conftest import run_apart
from tests.support.chat import User, receive, texts
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until

FROM_THE_FUTURE = """
WITH next AS (UPDATE control_head SET sequence = sequence + 1 RETURNING sequence)
INSERT INTO control_log (sequence, kind, session_ids) SELECT sequence, 'from_the_future', '{}' FROM next
"""


def execute(database_url: str, *statements: str) -> None:
    """In one transaction."""

    async def run() -> None:
        connection = await asyncpg.connect(database_url)
        try:
            async with connection.transaction():
                for statement in statements:
                    await connection.execute(statement)
        finally:
            await connection.close()

    run_apart(run)


def close_code(stream: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            stream.recv(timeout=10)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


def messages(server: ServerProcess) -> list[str]:
    return [record["message"] for record in server.records()]


@pytest.fixture
def replicas(database_url: str, tmp_path: Path) -> Iterator[list[ServerProcess]]:
    """Two without NATS: each hears of the other by its tail check alone."""
    servers = [ServerProcess(tmp_path, DATABASE_URL=database_url) for _ in range(2)]
    with servers[0].start(), servers[1].start():
        yield servers
        assert [server.stop() for server in servers] == [0, 0]


@pytest.fixture
def alice(replicas: list[ServerProcess]) -> User:
    return replicas[0].chat().user()


def elsewhere(server: ServerProcess, user: User) -> User:
    """The same user with the same token, asking another replica."""
    return User(server.chat(), user.name, user.token, user.refresh_token, user.user_id)


def test_a_kind_of_a_newer_release_is_passed_over(
    replicas: list[ServerProcess], alice: User, database_url: str
) -> None:
    """A rolling update: replicas of the release before read what the new one writes."""
    here = replicas[1]
    execute(database_url, FROM_THE_FUTURE, FROM_THE_FUTURE)
    wait_until(lambda: any("does not know" in text for text in messages(here)))
    with elsewhere(here, alice).stream(alice.channel(alice.guild())) as stream:
        alice.chat.login(alice.name)  # the same device: the session before ends
        assert close_code(stream)[0] == 4401, "what stands behind it is applied"
    assert sum("does not know" in text for text in messages(here)) == 1, "said once for each kind"


def test_a_tail_check_that_fails_is_tried_again(replicas: list[ServerProcess], alice: User, database_url: str) -> None:
    channel = alice.channel(alice.guild())
    with elsewhere(replicas[1], alice).stream(channel) as stream:
        execute(
            database_url,
            "ALTER TABLE channels ALTER head_sequence TYPE text",
            "UPDATE channels SET head_sequence = 'none'",
        )
        wait_until(lambda: "tail check: failed" in messages(replicas[1]))
        execute(
            database_url,
            "UPDATE channels SET head_sequence = '0'",
            "ALTER TABLE channels ALTER head_sequence TYPE bigint USING head_sequence::bigint",
        )
        alice.say(channel, "on")
        assert texts(receive(stream, 1)) == ["on"]
