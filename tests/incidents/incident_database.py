"""PostgreSQL: down, read-only, full, slow in one table, and a locked row."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from anyio.from_thread import start_blocking_portal

from openguild_runtime.embedded import EmbeddedPostgres
from tests.incidents.conftest import Incident, Site, pod, repeated, run_statements
from tests.support.runbooks import PAGE
from tests.support.server import ServerProcess
from tests.support.standby import PrimaryPostgres, StandbyPostgres
from tests.support.waiting import wait_until

DISK_MIB = 200
READERS = 12
INVITES = "/guilds/{guild_id}/invites"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a small file system."""
    directory = tmp_path / "disk"
    directory.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", directory], check=False, capture_output=True
    )
    if made.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {made.stderr.decode().strip()}")
    yield directory
    subprocess.run(["umount", directory], check=True)


def serve(directory: Path, postgres: EmbeddedPostgres) -> ServerProcess:
    server = pod(directory, DATABASE_URL=postgres.url)
    assert server.run_command("migrate").returncode == 0
    return server.start()


def test_postgresql_is_down(tmp_path: Path, walk: Callable[..., Incident]) -> None:
    postgres = EmbeddedPostgres(tmp_path / "data", fsync=False)
    postgres.start()
    try:
        with serve(tmp_path, postgres) as server:
            incident, refused = walk("database-away", server), walk("unavailable", server)
            place = Site(server, postgres.url)
            with repeated(place.post):
                postgres.kill()
                incident.fires("OpenGuildDatabaseAway")
                assert re.search(r"database: error .*\(refused\)", incident.ask())
                assert "no response" in incident.try_row("pg_ready")
                refused.fires("OpenGuildUnavailable")
                refused.fires("OpenGuildUnavailableRaised")
                (told,) = json.loads(refused.ask())
                assert told["rejection"] == "database_unavailable"
                postgres.restart()
                assert "accepting connections" in incident.try_row("pg_ready")
                incident.ends("OpenGuildDatabaseAway")
                wait_until(lambda: "\nready\n" in incident.ask(), what=incident.ask)
            refused.ends("OpenGuildUnavailable", "OpenGuildUnavailableRaised")
            wait_until(lambda: json.loads(refused.ask(2)) == [], what=lambda: refused.ask(2))
    finally:
        postgres.stop()


def test_a_standby_is_down(tmp_path: Path, walk: Callable[..., Incident]) -> None:
    primary = PrimaryPostgres(tmp_path / "primary")
    primary.start()
    standby = StandbyPostgres(tmp_path / "standby", primary)
    standby.start()
    try:
        server = pod(tmp_path, DATABASE_URL=primary.url, DATABASE__REPLICA_URLS=standby.url)
        assert server.run_command("migrate").returncode == 0
        with server.start():
            incident = walk("standby-left-out", server)
            wait_until(
                lambda: server.metric("openguild_standby_serving", standby="0") == 1, what="a standby that serves"
            )
            standby.kill()
            incident.fires("OpenGuildStandbyLeftOut")
            said = incident.ask()
            assert "standbys: error 1 of 1 left out: 0 is FAILED" in said
            assert "standby 0 failed" in said
            assert "(0 rows)" in incident.try_row("sql"), "it does not follow"
            standby.restart()
            wait_until(lambda: "\nready\n" in incident.run("ready"))
            incident.ends("OpenGuildStandbyLeftOut")
    finally:
        standby.stop()
        primary.stop()


def test_postgresql_is_read_only(site: Site, walk: Callable[..., Incident]) -> None:
    incident = walk("writes-fail", site.server)
    name = urlsplit(site.database_url).path[1:]
    run_statements(
        site.database_url,
        f"ALTER DATABASE {name} SET default_transaction_read_only = on",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    with repeated(site.post):
        incident.fires("OpenGuildWritesFail", cause="read_only")
        assert '"cause":"read_only"' in incident.ask().replace(" ", "")
        asked = re.search(r'`(sql "SELECT current_database[^`]*)`', PAGE.read_text())
        assert asked is not None
        assert re.search(rf" {name} +\| f +\| on", incident.run(asked[1]))
        incident.mend(0, name=name)
        incident.ends("OpenGuildWritesFail")
    wait_until(lambda: site.post() == 200)


def test_the_disk_of_postgresql_is_full(disk: Path, tmp_path: Path, walk: Callable[..., Incident]) -> None:
    postgres = EmbeddedPostgres(disk / "data", fsync=False, settings={"max_wal_size": "48MB", "min_wal_size": "32MB"})
    postgres.start()
    try:
        with serve(tmp_path, postgres) as server:
            place = Site(server, postgres.url)
            incident = walk("writes-fail", server)
            ballast = disk / "somebody-s-dump"
            with ballast.open("wb") as file:
                left = shutil.disk_usage(disk).free
                file.write(b"x" * left)
            with repeated(lambda: place.post(os.urandom(1_500).hex())):
                incident.fires("OpenGuildWritesFail", cause="disk_full")
                assert '"cause":"disk_full"' in incident.ask().replace(" ", "")
                slots = re.search(r"`(sql \"SELECT slot_name[^`]*)`", PAGE.read_text())
                assert slots is not None
                assert "(0 rows)" in incident.run(slots[1]), "no slot holds the WAL"
                ballast.unlink()
                incident.ends("OpenGuildWritesFail")
            wait_until(lambda: place.post() == 200)
    finally:
        postgres.stop()


def test_a_table_was_renamed(site: Site, walk: Callable[..., Incident]) -> None:
    incident = walk("writes-fail", site.server)
    run_statements(site.database_url, "ALTER TABLE message_states RENAME TO renamed")
    with repeated(lambda: site.alice.get(f"/channels/{site.channel}/messages")):
        incident.fires("OpenGuildReadsFail", cause="schema")
        assert '"says": "relation \\"message_states\\" does not exist"' in incident.ask()
        run_statements(site.database_url, "ALTER TABLE renamed RENAME TO message_states")
        incident.ends("OpenGuildReadsFail")
    wait_until(lambda: site.post() == 200)


def test_one_table_is_slow(site: Site, walk: Callable[..., Incident]) -> None:
    """The table is as slow as without its index."""
    latency = walk("high-http-latency", site.server)
    run_statements(
        site.database_url,
        "CREATE OR REPLACE FUNCTION crawl() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(3); RETURN NEW; END $$",
        "CREATE TRIGGER crawl BEFORE INSERT ON invites FOR EACH ROW EXECUTE FUNCTION crawl()",
    )
    other = site.server.chat().login(site.alice.name, device="second")
    with repeated(site.post), repeated(lambda: other.post(f"/guilds/{site.guild}/invites")):
        latency.fires("OpenGuildRouteSlow", route=INVITES)
        assert json.loads(latency.ask().splitlines()[0])["route"] == INVITES
        statements = walk("statements-wait", site.server)
        row = wait_until(
            lambda: re.search(r"^ *\d+ \|.*invites.*$", statements.ask(), re.MULTILINE),
            secs=5,
            what=statements.ask,
        )
        assert "| {} " in row[0], "nobody blocks it"
        run_statements(site.database_url, "DROP TRIGGER crawl ON invites")
        latency.ends("OpenGuildRouteSlow")


def test_a_row_is_locked(site: Site, walk: Callable[..., Incident]) -> None:
    """The same session also locks a table that is read."""
    incident = walk("statements-wait", site.server)
    with start_blocking_portal() as portal, repeated(site.post), ExitStack() as readers:
        bob = site.server.chat().user()  # the reads of one user leave a connection free
        for user, guild in ((site.alice, site.guild), (bob, bob.guild())):
            for _ in range(READERS):
                reader = replace(user, chat=site.server.chat())
                readers.enter_context(repeated(partial(reader.get, f"/guilds/{guild}/invites")))
        forgotten = portal.call(partial(asyncpg.connect, site.database_url))
        portal.call(forgotten.execute, "BEGIN")
        portal.call(forgotten.execute, f"SELECT FROM logs WHERE log_id = '{site.channel}' FOR UPDATE")
        portal.call(forgotten.execute, "LOCK TABLE invites")
        incident.fires("OpenGuildStatementsWait", cause="locked")
        incident.fires("OpenGuildReadsWait", instance=site.instance)
        first = next(line for line in incident.ask().splitlines() if "idle in transaction" in line)
        assert "| {} " in first
        assert " t\n" in incident.mend(0, pid=int(first.split("|")[0]))
        incident.ends("OpenGuildStatementsWait", "OpenGuildReadsWait")
        wait_until(lambda: site.post() == 200)
        portal.call(forgotten.close)
