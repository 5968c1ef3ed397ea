"""A replica keeps serving when the control log holds records that it does not expect (PROTOCOL 10.4)."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from tests.conftest import run_apart
from tests.support.chat import User, receive, texts
from tests.support.server import ServerProcess
from tests.support.waiting import PATIENCE_SECS, wait_until

FROM_THE_FUTURE = """
WITH next AS (UPDATE control_head SET sequence = sequence + 1 RETURNING sequence)
INSERT INTO control_log (sequence, kind, session_ids) SELECT sequence, 'from_the_future', '{}' FROM next
"""


def execute(database_url: str, *statements: str) -> None:
    """Execute the statements in one transaction."""

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
            stream.recv(timeout=PATIENCE_SECS)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


def messages(server: ServerProcess) -> list[str]:
    return [record["message"] for record in server.records()]


@pytest.fixture
def replicas(database_url: str, tmp_path: Path) -> Iterator[list[ServerProcess]]:
    """Two replicas without NATS, which notice each other's changes only by their tail checks."""
    servers = [ServerProcess(tmp_path, DATABASE_URL=database_url) for _ in range(2)]
    with servers[0].start(), servers[1].start():
        yield servers
        assert [server.stop() for server in servers] == [0, 0]


@pytest.fixture
def alice(replicas: list[ServerProcess]) -> User:
    return replicas[0].chat().user()


def elsewhere(server: ServerProcess, user: User) -> User:
    """Return the same user with the same token, at another replica."""
    return User(server.chat(), user.name, user.token, user.refresh_token, user.user_id)


def test_a_kind_of_a_newer_release_is_passed_over(
    replicas: list[ServerProcess], alice: User, database_url: str
) -> None:
    """During a rolling update, replicas of the earlier release read records that the new one writes."""
    here = replicas[1]
    execute(database_url, FROM_THE_FUTURE, FROM_THE_FUTURE)
    wait_until(lambda: any("does not know" in text for text in messages(here)))
    with elsewhere(here, alice).stream(alice.channel(alice.guild())) as stream:
        alice.chat.login(alice.name)  # the same device, so the earlier session ends
        assert close_code(stream)[0] == 4401, "what stands behind it is applied"
    assert sum("does not know" in text for text in messages(here)) == 1, "said once for each kind"


def test_a_tail_check_that_fails_is_tried_again(replicas: list[ServerProcess], alice: User, database_url: str) -> None:
    channel = alice.channel(alice.guild())
    with elsewhere(replicas[1], alice).stream(channel) as stream:
        execute(
            database_url,
            "ALTER TABLE logs ALTER head_sequence TYPE text",
            "UPDATE logs SET head_sequence = 'none'",
        )
        wait_until(lambda: "checking the channels' tails: failed" in messages(replicas[1]))
        execute(
            database_url,
            "UPDATE logs SET head_sequence = '0'",
            "ALTER TABLE logs ALTER head_sequence TYPE bigint USING head_sequence::bigint",
        )
        alice.say(channel, "on")
        assert texts(receive(stream, 1)) == ["on"]


def test_the_log_of_a_channel_goes_back(replicas: list[ServerProcess], alice: User, database_url: str) -> None:
    """This is how a restored backup, or a failover that lost commits, looks to a replica."""
    channel = alice.channel(alice.guild())
    bob = elsewhere(replicas[1], alice)
    with bob.stream(channel) as stream:
        for text in ("kept", "lost", "lost too"):
            alice.say(channel, text)
        assert len(receive(stream, 3)) == 3
        execute(
            database_url,
            f"DELETE FROM log_events WHERE log_id = '{channel}' AND sequence > 1",
            f"UPDATE logs SET head_sequence = 1 WHERE log_id = '{channel}'",
        )
        assert close_code(stream) == (1012, "the log of this channel went back; start again")
    with pytest.raises(InvalidStatus) as refused, bob.stream(channel, since=3):
        pass
    assert refused.value.response.status_code == 400
    assert json.loads(refused.value.response.body)["error"] == "invalid_since"
    with bob.stream(channel, since=0) as stream:
        assert texts(receive(stream, 1)) == ["kept"]
        alice.say(channel, "new")
        assert [(event["sequence"], *texts([event])) for event in receive(stream, 1)] == [(2, "new")]


def test_the_control_log_goes_back(replicas: list[ServerProcess], alice: User, database_url: str) -> None:
    """Sessions that the restored database does not have end, and later revocations are noticed."""
    bob = replicas[0].chat().user()
    channel = bob.channel(bob.guild())
    execute(database_url, FROM_THE_FUTURE)
    wait_until(lambda: any("does not know" in text for text in messages(replicas[1])))
    with elsewhere(replicas[1], alice).notifications() as first, elsewhere(replicas[1], bob).stream(channel) as second:
        execute(
            database_url,
            f"UPDATE refresh_families SET revoked_at = now() WHERE user_id = '{alice.user_id}'",
            "DELETE FROM control_log",
            "UPDATE control_head SET sequence = 0",
        )
        assert close_code(first)[0] == 4401
        assert elsewhere(replicas[1], alice).get("/users/me").status_code == 401
        bob.chat.login(bob.name)
        assert close_code(second)[0] == 4401


def test_records_that_were_missed_and_pruned(replicas: list[ServerProcess], alice: User, database_url: str) -> None:
    channel = alice.channel(alice.guild())
    behind = replicas[1]
    with elsewhere(behind, alice).stream(channel) as stream:
        assert behind.process is not None
        behind.process.send_signal(signal.SIGSTOP)
        alice.chat.login(alice.name)  # the same device, so the earlier session ends
        execute(database_url, "DELETE FROM control_log")
        behind.process.send_signal(signal.SIGCONT)
        assert close_code(stream)[0] == 4401
