"""Writes fail while reads work: the server never answers 500, reports the cause everywhere, and recovers by itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from anyio.from_thread import start_blocking_portal

from openguild_runtime.embedded import EmbeddedPostgres
from openguild_runtime.observability.database_causes import CAUSES
from openguild_runtime.server.readiness import WATCH_SECS
from openguild_runtime.storage.postgres.pool import SILENT_AFTER_SECS
from tests.support.busy import fair_secs
from tests.support.chat import PASSWORD, User, texts
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until

Run = Callable[[str], object]


@contextmanager
def owner_of(url: str) -> Iterator[Run]:
    """Yield a function that runs statements as the owner of the database, in a session opened beforehand."""
    with start_blocking_portal() as portal:
        connection = portal.call(partial(asyncpg.connect, url))
        portal.call(connection.execute, "SET default_transaction_read_only = off")

        def run(statement: str, attempts: int = 5) -> None:
            try:
                portal.call(connection.execute, statement)
            except asyncpg.DeadlockDetectedError:  # with the server: the partitions are not locked atomically
                if attempts == 1:
                    raise
                run(statement, attempts - 1)

        try:
            yield run
        finally:
            portal.call(connection.close)


class Place:
    """A server whose database the test breaks."""

    def __init__(self, server: ServerProcess, run: Run, name: str) -> None:
        self.server = server
        self.run = run
        self.name = name  # of the database
        self.alice: User = server.chat().user()
        self.channel = self.alice.channel(self.alice.guild())

    def post(self, text: str) -> tuple[int, str | None]:
        answer = self.alice.post(
            f"/channels/{self.channel}/messages", {"content": text, "nonce": text.replace(" ", "-")}
        )
        return answer.status_code, answer.json().get("error")

    def database(self) -> str:
        components = {line["name"]: line["details"] for line in self.server.get("/ready")["components"]}
        return str(components["database"])

    def logged(self, text: str) -> list[dict[str, object]]:
        return [record for record in self.server.records() if text in record["message"]]


@pytest.fixture(scope="module")
def place(module_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    server = ServerProcess(tmp_path_factory.mktemp("faults"), DATABASE_URL=module_database)
    with owner_of(module_database) as run, server.start():
        yield Place(server, run, urlsplit(module_database).path[1:])
        assert not [record for record in server.records() if record["level"] == "ERROR"], server.tail()
        assert server.stop() == 0


def raising(state: str) -> tuple[list[str], list[str]]:
    """Return statements that make every insert of an event fail with this SQLSTATE, and those that undo this."""
    begin = [
        "CREATE OR REPLACE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION 'trouble' USING ERRCODE = '{state}'; END $$",
        "CREATE TRIGGER trouble BEFORE INSERT ON log_events FOR EACH ROW EXECUTE FUNCTION trouble()",
    ]
    return begin, ["DROP TRIGGER trouble ON log_events"]


END_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
TROUBLES = {
    "read_only": (
        ["ALTER DATABASE {name} SET default_transaction_read_only = on", END_SESSIONS],
        ["ALTER DATABASE {name} RESET default_transaction_read_only"],
    ),
    "rights": (
        ["REVOKE INSERT ON log_events FROM CURRENT_USER"],
        ["GRANT INSERT ON log_events TO CURRENT_USER"],
    ),
    "schema": (["ALTER TABLE log_events RENAME TO aside"], ["ALTER TABLE aside RENAME TO log_events"]),
    "too_many_connections": (
        ["ALTER DATABASE {name} CONNECTION LIMIT 0", END_SESSIONS],
        ["ALTER DATABASE {name} CONNECTION LIMIT -1"],
    ),
    "disk_full": raising("53100"),
    "memory": raising("53200"),
    "damaged": raising("58030"),
    "limit": raising("53400"),
}
WRITES_FAIL = TROUBLES.keys() - {"too_many_connections"}  # there it is a read that fails first


@pytest.mark.parametrize("cause", TROUBLES)
def test_writes_that_fail_are_known_everywhere_and_end_by_themselves(place: Place, cause: str) -> None:
    begin, end = TROUBLES[cause]
    server = place.server

    def failed_writes() -> float:
        return sum(server.metric("openguild_db_failures_total", operation="write", cause=name) for name in CAUSES)

    def is_refused(number: int = 0) -> bool:
        assert place.post(f"{cause} {number}") == (503, "database_unavailable")
        return failed_writes() > before

    def lines() -> int:
        return sum(line["cause"] == cause for line in place.logged("the database failed"))

    before, lines_before = failed_writes(), lines()
    assert place.post(f"before {cause}") == (200, None)
    for statement in begin:
        place.run(statement.format(name=place.name))
    try:
        if END_SESSIONS in begin and cause in WRITES_FAIL:  # a post may find its session ended before it writes
            wait_until(is_refused)
            before = failed_writes()
        for number in range(3):
            is_refused(number)
        if cause in WRITES_FAIL:
            assert failed_writes() - before == 3
        wait_until(lambda: f"({cause})" in place.database())
        assert server.status("/ready") == 503
        assert server.metric("openguild_db_ready") == 0
        assert sum(
            server.metric("openguild_db_failures_total", operation=kind, cause=cause) for kind in ("read", "write")
        )
        if cause not in {"schema", "too_many_connections"}:
            assert place.alice.get(f"/channels/{place.channel}/events").status_code == 200
        assert lines() > 0
        assert lines() - lines_before <= 1, "once in a while (another test may have had its line), not once for each"
    finally:
        for statement in end:
            place.run(statement.format(name=place.name))
        wait_until(lambda: server.status("/ready") == 200)
    for number in range(3):
        assert place.post(f"{cause} {number}") == (200, None), "no session of that time is left"


@pytest.mark.parametrize("table", ["sessions", "refresh_tokens", "refresh_families"])
def test_a_login_that_cannot_be_stored_shows_in_readiness(place: Place, table: str) -> None:
    place.run(f"REVOKE INSERT ON {table} FROM openguild")
    try:
        login = {"identifier": place.alice.name, "secret": PASSWORD, "device": {"device_id": table}}
        assert place.alice.post("/sessions/login", login).status_code == 503
        wait_until(lambda: "(rights)" in place.database())
        assert place.server.status("/ready") == 503
    finally:
        place.run(f"GRANT INSERT ON {table} TO openguild")
    wait_until(lambda: place.server.status("/ready") == 200)


@pytest.mark.parametrize(
    ("state", "error"),
    [("40001", "overloaded"), ("40P01", "overloaded"), ("55P03", "overloaded"), ("57014", "database_unavailable")],
)
def test_what_says_nothing_about_the_next_write_leaves_the_server_ready(place: Place, state: str, error: str) -> None:
    begin, end = raising(state)
    for statement in begin:
        place.run(statement)
    try:
        assert place.post(f"state {state}") == (503, error)
        wait_until(lambda: place.server.status("/ready") == 200, what="readiness while events are refused")
    finally:
        for statement in end:
            place.run(statement)
        wait_until(lambda: place.post(f"state {state}") == (200, None))


def test_one_table_of_many_does_not_take_the_server_out(place: Place) -> None:
    """Invites fail and are counted, while messages are served."""
    place.run("REVOKE INSERT ON invites FROM CURRENT_USER")
    try:
        refused = place.alice.post(f"/guilds/{place.alice.guild()}/invites", {})
        assert (refused.status_code, refused.json()["error"]) == (503, "database_unavailable")
        assert place.post("meanwhile") == (200, None)
        assert place.server.status("/ready") == 200
    finally:
        place.run("GRANT INSERT ON invites TO CURRENT_USER")


# --- a database that stops answering ---------------------------------------------------------------


def family_of(pid: int) -> list[int]:
    """A server's process and its children."""
    found = [pid]
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
        if parent == pid:
            found.append(int(status.parent.name))
    return found


def signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # a backend has just ended
            os.kill(pid, number)


def test_a_stopped_database_is_answered_for_in_time_and_comes_back_whole(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path / "data", fsync=False)
    postgres.start()
    server = ServerProcess(tmp_path, DATABASE_URL=postgres.url)
    stopped: list[int] = []
    try:
        assert server.run_command("migrate").returncode == 0
        with server.start():
            place = Place(server, lambda statement: None, "")
            assert place.post("before") == (200, None)
            assert postgres.pid is not None
            stopped = family_of(postgres.pid)
            signal_all(stopped, signal.SIGSTOP)
            asked = fair_secs()
            assert place.post("meanwhile") == (503, "database_unavailable")
            assert fair_secs() - asked < SILENT_AFTER_SECS + WATCH_SECS + 1
            known = fair_secs()
            for number in range(20):
                assert place.post(f"at once {number}") == (503, "database_unavailable")
                assert place.alice.get(f"/channels/{place.channel}/events").status_code == 503
            assert fair_secs() - known < SILENT_AFTER_SECS, "none of them waits for the database"
            signal_all(stopped, signal.SIGCONT)
            wait_until(lambda: server.status("/ready") == 200)
            for text in ("meanwhile", *(f"at once {number}" for number in range(20))):
                assert place.post(text) == (200, None)
            said = texts(place.alice.history(place.channel, limit=200))
            assert sorted(said) == sorted({"before", "meanwhile", *(f"at once {number}" for number in range(20))}), (
                "once"
            )
            wait_until(lambda: server.metric("openguild_db_pool_connections", state="used") == 0, what="no use of any")
            stopped = family_of(postgres.pid)
            signal_all(stopped, signal.SIGSTOP)
            leaves = fair_secs()
            assert server.stop() == 0
            assert fair_secs() - leaves < 4 + 2, "its drain time and two seconds"
    finally:
        signal_all(stopped, signal.SIGCONT)
        postgres.stop()
