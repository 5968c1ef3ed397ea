"""Searches for a redacted text in tables, pages, streams, the memory of two replicas and PostgreSQL's files (PROTOCOL 6.7)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest

from openguild_runtime.embedded import EmbeddedNats, EmbeddedPostgres
from tests.conftest import run_apart
from tests.support.chat import User, receive
from tests.support.held_memory import DIRECTORY, look
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until

WORD, KANJI = "zyxomarkerquorn", "\u9c7b\u9f98\u9750\u9f49"
FIRST = f"first of all {WORD} and {KANJI} and that is the whole of it"
SECOND = f"second thoughts: {KANJI} rather than {WORD}, and that is the whole of it"
THIRD = f"third and last: {WORD} with {KANJI}, and that is the whole of it"
OTHERS = 20  # messages after the redaction


class Server(ServerProcess):
    """A server that reports which of its objects contain a text."""

    program = ("-m", "tests.support.held_memory")


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL that the test stops, so that its files are complete."""
    (tmp_path / "postgres").mkdir()
    server = EmbeddedPostgres(tmp_path / "postgres", fsync=False, settings={"autovacuum": "off"})
    server.start()
    yield server
    server.stop()


@pytest.fixture
def replicas(
    own_postgres: EmbeddedPostgres, nats_server: EmbeddedNats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[Server]]:
    monkeypatch.setenv(DIRECTORY, str(tmp_path))
    servers = [Server(tmp_path, DATABASE_URL=own_postgres.url, NATS__URL=nats_server.url) for _ in range(2)]
    assert servers[0].run_command("migrate").returncode == 0
    with servers[0].start(), servers[1].start():
        yield servers


def test_a_redacted_text_is_nowhere(own_postgres: EmbeddedPostgres, replicas: list[Server], tmp_path: Path) -> None:
    alice, bob = replicas[0].chat().user("alice"), replicas[1].chat().user("bob")
    guild = alice.guild()
    channel = alice.channel(guild)
    bob.join(alice.invite(guild))
    with alice.stream(channel) as here, bob.stream(channel) as there:
        message = alice.say(channel, f"{FIRST} <@{bob.user_id}>")["event_id"]
        path = f"/channels/{channel}/events/{quote(message, safe='')}"
        for text in (SECOND, THIRD):
            alice.ok(alice.request("PATCH", path, json={"content": text}))
        bob.ok(bob.post(f"{path}/reactions", {"emoji": "+1"}))
        bob.say(channel, "indeed", reply_to=message)
        assert WORD in str(receive(here, 5))
        assert WORD in str(receive(there, 5))
        for user in (alice, bob):
            assert WORD in everything_read(user, channel, message)
            for word in (WORD, KANJI):
                wait_until(lambda user=user, word=word: bool(search(user, word)), secs=30, what=lambda: "the index")
        wait_until(lambda: rows(own_postgres, "search_documents") == 2, secs=30, what=lambda: "the index")
        for server in replicas:
            assert look(process_id(server), tmp_path, [WORD]), "nothing is found where it must be"

        alice.ok(alice.request("DELETE", path))
        receive(here, 1)
        receive(there, 1)
        for user in (alice, bob):
            read = everything_read(user, channel, message)
            assert WORD not in read
            assert KANJI not in read
            assert search(user, WORD) == []
        assert tables_with(own_postgres, WORD, KANJI) == []
        for number in range(OTHERS):
            user = (alice, bob)[number % 2]
            user.say(channel, f"something else {number} " + "x" * (7 * number % 200))
            receive(here, 1)
            receive(there, 1)
        for server, user in zip(replicas, (alice, bob), strict=True):
            forgets(server, user, channel, tmp_path)
    for server in replicas:
        assert server.stop() == 0
    left_in_files(own_postgres, tmp_path / "postgres")


def forgets(server: Server, user: User, channel: str, directory: Path) -> None:
    """Check that no object of the server holds the text after every session of its pool has read other rows (docs/security.md)."""
    paths = [
        path
        for count in range(1, 9)
        for path in (
            f"/channels/{channel}/events?limit={count}",
            f"/channels/{channel}/messages?limit={count}",
            f"/search/messages?q=something{count}",
        )
    ]

    def is_forgotten() -> bool:
        with ThreadPoolExecutor(len(paths)) as readers:
            list(readers.map(lambda path: user.ok(user.get(path)), paths))
        return look(process_id(server), directory, [WORD, KANJI]) == []

    wait_until(is_forgotten, secs=60, what=lambda: str(look(process_id(server), directory, [WORD, KANJI])))


def left_in_files(postgres: EmbeddedPostgres, directory: Path) -> None:
    """Check the claims of docs/operations.md about PostgreSQL's files, except the WAL."""
    statements(postgres, "VACUUM")
    relations = names_by_file(postgres)
    found = files_with(postgres, directory, WORD, KANJI[:2])
    assert {relations.get(file, file) for file in found} <= {"search_documents_terms", "message_states", "log_events"}
    statements(postgres, "REINDEX INDEX CONCURRENTLY search_documents_terms")
    relations = names_by_file(postgres)
    found = files_with(postgres, directory, WORD, KANJI[:2])
    assert "search_documents_terms" not in {relations.get(file, file) for file in found}
    statements(postgres, "VACUUM FULL")
    assert files_with(postgres, directory, WORD, KANJI[:2]) == {}


def everything_read(user: User, channel: str, message: str) -> str:
    """Return everything that the API shows of the channel."""
    one = f"/channels/{channel}/messages/{quote(message, safe='')}"
    paths = (
        f"/channels/{channel}/events",
        f"/channels/{channel}/messages",
        one,
        f"{one}/versions",
        "/inbox",
        "/users/@me/log",
    )
    read: list[Any] = [user.ok(user.get(path)) for path in paths]
    read.append(user.ok(user.post("/sync", {"positions": [{"log": f"channel:{channel}", "epoch": 1, "sequence": 0}]})))
    with user.stream(channel, since=0) as again:
        read.append(receive(again, 5))
    return str(read)


def search(user: User, word: str) -> list[Any]:
    found: list[Any] = user.ok(user.get("/search/messages", params={"q": word}))
    return found


def process_id(server: Server) -> int:
    assert server.process is not None
    return server.process.pid


def rows(postgres: EmbeddedPostgres, table: str) -> int:
    return int(statements(postgres, f"SELECT count(*) FROM {table}")[0][0][0])


def statements(postgres: EmbeddedPostgres, *queries: str) -> list[list[asyncpg.Record]]:
    """Return the rows of each query."""
    found: list[list[asyncpg.Record]] = []

    async def ask() -> None:
        connection = await asyncpg.connect(postgres.url)
        for query in queries:
            found.append(await connection.fetch(query))
        await connection.close()

    run_apart(ask)
    return found


def tables_with(postgres: EmbeddedPostgres, *markers: str) -> list[str]:
    """Return the tables in which a row contains one of the markers in any column."""
    (tables,) = statements(
        postgres, "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    found = []
    for (table,) in tables:
        (lines,) = statements(postgres, f"SELECT * FROM {table}")
        cells = [
            bytes(cell) if isinstance(cell, bytes) else str(cell).encode() for line in lines for cell in line.values()
        ]
        if any(marker.encode() in cell for marker in markers for cell in cells):
            found.append(table)
    return found


def names_by_file(postgres: EmbeddedPostgres) -> dict[str, str]:
    """Return the database's relations by file name."""
    (relations,) = statements(
        postgres,
        "SELECT pg_relation_filepath(oid), regexp_replace(relname, '_[0-9]+$', '')"
        " FROM pg_class WHERE relkind IN ('r', 'i', 't')",
    )
    return {file: name for file, name in relations if file is not None}


def files_with(postgres: EmbeddedPostgres, directory: Path, *markers: str) -> dict[str, int]:
    """Count the markers in each file of the stopped server, except the WAL, and start the server again."""
    postgres.stop()
    found = Counter[str]()
    for file in directory.rglob("base/**/*"):
        if file.is_file():
            name = str(file.relative_to(file.parents[2]))
            found[name] = sum(file.read_bytes().count(marker.encode()) for marker in markers)
    postgres.start()
    return dict(+found)
