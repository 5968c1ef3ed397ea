"""The earlier release returns: it works with the later schema (docs/operations.md, Rollback)."""

from __future__ import annotations

from pathlib import Path

import asyncpg

from openguild_runtime.embedded.postgres import running_url
from tests.conftest import run_apart
from tests.support.chat import receive, texts
from tests.support.server import ServerProcess

LATER = (
    "ALTER TABLE users ADD COLUMN later json NOT NULL DEFAULT '{}'",
    "ALTER TABLE channels ADD COLUMN later text",
    "CREATE TABLE of_a_later_release (id bigint PRIMARY KEY)",
    "UPDATE alembic_version SET version_num = '0099'",
)


def test_private_servers_with_a_later_schema(tmp_path: Path) -> None:
    async def step_ahead(url: str) -> None:
        connection = await asyncpg.connect(url)
        for statement in LATER:
            await connection.execute(statement)
        await connection.close()

    server = ServerProcess(tmp_path, "--embedded", DATA_DIR=tmp_path / "data")
    with server.start():
        alice = server.chat().user()
        channel = alice.channel(alice.guild())
        alice.say(channel, "before")
        url = running_url(tmp_path / "data")
        assert url is not None
        run_apart(step_ahead, url)
        alice.say(channel, "while it serves")
        assert server.stop() == 0
    with server.start():
        alice = server.chat().login(alice.name)
        with alice.stream(channel, since=0, epoch=1) as stream:
            alice.say(channel, "after")
            assert texts(receive(stream, 3)) == ["before", "while it serves", "after"]
        done = server.run_command("migrate", "--new-epoch")
        assert (done.returncode, done.stderr) == (0, "")
        assert "of a later release (0099)" in done.stdout
        alice.channel(alice.guild("another"))
        assert server.stop() == 0
    said = [record for record in server.records() if "schema is of a later release" in record["message"]]
    assert [record["level"] for record in said] == ["WARNING"], "once"
