"""A later release adds columns while this one runs: every request is answered as before."""

from __future__ import annotations

import re
from pathlib import Path

import asyncpg
import pytest

import openguild_runtime.storage.postgres as store
from tests.conftest import run_apart
from tests.support.chat import Chat, User, receive, texts
from tests.support.server import ServerProcess

# of a type without equality, so that UNION and DISTINCT over all columns would fail
ADD = """
DO $do$ DECLARE found regclass; BEGIN
    FOR found IN SELECT oid FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition
        AND relnamespace = 'public'::regnamespace LOOP
        EXECUTE format('ALTER TABLE %s ADD COLUMN later json NOT NULL DEFAULT ''{}''', found);
    END LOOP;
END $do$
"""


def everything(chat: Chat) -> list[int]:
    """Send a request to each route that uses the database; return the statuses."""
    alice, bob = chat.user(), chat.user()
    made: list[int] = []

    def ask(user: User, method: str, path: str, body: object = None) -> object:
        answer = user.request(method, path, **({} if body is None else {"json": body}))
        made.append(answer.status_code)
        return answer.json() if answer.content else None

    renewed = ask(alice, "POST", "/sessions/refresh", {"refresh_token": alice.refresh_token})
    alice.token = renewed["access_token"]  # type: ignore[index]  # an object by its route
    alice = chat.login(alice.name, "second")
    ask(alice, "GET", "/users/me")
    ask(alice, "GET", "/sessions/devices")
    ask(alice, "DELETE", "/sessions/devices/test")
    guild = alice.guild()
    for method, path, body in (
        ("GET", "/guilds", None), ("GET", f"/guilds/{guild}", None), ("PATCH", f"/guilds/{guild}", {"name": "new"}),
        ("GET", f"/guilds/{guild}/channels", None), ("GET", f"/guilds/{guild}/members", None),
    ):  # fmt: skip
        ask(alice, method, path, body)
    channel = alice.channel(guild)
    code, spare = alice.invite(guild), alice.invite(guild)
    ask(bob, "GET", f"/invites/{code}")
    ask(bob, "POST", f"/invites/{code}/accept", {})
    ask(bob, "POST", f"/invites/{code}/accept", {})
    ask(alice, "GET", f"/guilds/{guild}/invites")
    ask(alice, "DELETE", f"/invites/{spare}")
    ask(alice, "PUT", f"/guilds/{guild}/members/{bob.user_id}", {"role": "moderator"})
    with bob.stream(channel, since=0) as stream, bob.notifications() as notifications:
        for _ in range(2):
            ask(bob, "POST", f"/channels/{channel}/messages", {"content": "hi", "nonce": "once"})
        assert texts(receive(stream, 1)) == ["hi"]
        receive(notifications, 1)
    for method, path, body in (
        ("GET", f"/channels/{channel}", None), ("PATCH", f"/channels/{channel}", {"name": "new"}),
        ("GET", f"/channels/{channel}/events", None), ("GET", f"/channels/{channel}/events?since=0", None),
        ("GET", f"/channels/{channel}/events?before=9", None), ("POST", f"/channels/{channel}/read", {}),
        ("GET", "/channels/unread", None),
    ):  # fmt: skip
        ask(bob, method, path, body)
    ask(bob, "DELETE", f"/guilds/{guild}/members/@me")
    ask(alice, "DELETE", f"/channels/{channel}")
    ask(alice, "DELETE", f"/guilds/{guild}")
    ask(alice, "POST", "/sessions/revoke", {"refresh_token": alice.refresh_token})
    return made


def test_every_table_has_another_column_while_the_server_serves(tmp_path: Path, database_url: str) -> None:
    async def add(url: str) -> None:
        connection = await asyncpg.connect(url)
        await connection.execute(ADD)
        await connection.close()

    with ServerProcess(tmp_path, DATABASE_URL=database_url).start() as server:
        chat = server.chat()
        before = everything(chat)
        assert {status // 100 for status in before} == {2}
        run_apart(add, database_url)
        assert everything(chat) == before
        assert server.status("/ready") == 200
        assert [record for record in server.records() if record["level"] == "ERROR"] == []


@pytest.mark.parametrize("module", sorted(Path(store.__file__).parent.glob("*.py")), ids=lambda path: path.stem)
def test_columns_are_named(module: Path) -> None:
    """No statement selects, returns or inserts without naming the columns."""
    code = re.sub(r"#[^\n]*", "", module.read_text())
    assert re.findall(r"(?:SELECT|RETURNING)\s+\*|\b\w+\.\*", code) == []
    assert re.findall(r"INSERT INTO \w+(?: AS \w+)?\s+(?:VALUES|SELECT)", code) == []
