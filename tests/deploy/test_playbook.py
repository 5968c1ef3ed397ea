"""The promises of docs/operations.md: headers on every answer, bounded series, the schema gate, backup and restore."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from uuid import UUID

import asyncpg
import httpx
import pytest

from openguild_proto.operations.route import Route
from openguild_proto.operations.routes import ROUTES
from openguild_runtime.embedded import EmbeddedPostgres
from openguild_runtime.embedded.postgres import postgres_programs
from tests.conftest import run_apart
from tests.deploy.test_manifests import DEPLOY
from tests.support.chat import Chat, User, texts
from tests.support.oncall import OnCall
from tests.support.raw import HOST, UPGRADE, RawClient, ask
from tests.support.scripts import script
from tests.support.server import ROOT, ServerProcess
from tests.support.waiting import wait_until

OPERATIONS = (ROOT / "docs/operations.md").read_text()


def promised_headers() -> dict[str, str]:
    """Return the headers in the document's list."""
    section = OPERATIONS.partition("## HTTP security headers")[2].partition("\n## ")[0]
    return {name.lower(): value for name, value in re.findall(r"^- `([A-Za-z-]+): (.+)`$", section, re.MULTILINE)}


@pytest.fixture(scope="module")
def user(server: ServerProcess) -> User:
    return server.chat().user()


def test_the_document_lists_four() -> None:
    assert len(promised_headers()) == 4


def test_every_line_of_the_original_has_its_answer_and_a_command() -> None:
    """Or says that it is a manual step."""
    rows = [line for line in OPERATIONS.partition("## Line by line")[2].splitlines() if line.startswith("| ")][2:]
    for row in rows:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
        assert len(cells) == 3, row
        assert all(cells), row
        assert "`" in cells[2] or "a manual step" in cells[2], row
    said = " ".join(rows).lower()
    for part in ("postmortem", "status page", "#ops", "retro", "clone per-environment dashboards", "thresholds"):
        assert part in said, part


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.template}")
def test_the_headers_are_on_every_route(route: Route, chat: Chat, user: User) -> None:
    """Tried without a token, with one, with an invalid body, with another method, and with HEAD."""
    path = re.sub(r"\{\w+\}", str(uuid.uuid4()), route.template)
    for method, headers in (
        (route.method, {}),
        (route.method, user.auth),
        ("PATCH", {}),
        ("HEAD", user.auth),
        ("OPTIONS", {}),
    ):
        answer = chat.http.request(method, path, headers=headers, content=b"{" if method == "POST" else None)
        for name, value in promised_headers().items():
            assert answer.headers.get(name) == value, (method, answer.status_code)
        assert answer.headers["x-request-id"]


ERRORS = [
    b"GET /no/such HTTP/1.1\r\n" + HOST + b"\r\n", b"GET / HTTP/2.0\r\n\r\n", b"\0\r\n", b"GET / HTTP/1.1\r\n\r\n",
    b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\n", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n",
    b"POST /sessions/login HTTP/1.1\r\n" + HOST + b"Content-Length: 9999999\r\n\r\n",
    b"POST /sessions/login HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip\r\n\r\n",
    b"POST /sessions/login HTTP/1.1\r\n" + HOST + b"Expect: x\r\n\r\n", b"GET /notifications/ws HTTP/1.1\r\n" + UPGRADE + b"\r\n",
    b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
]  # fmt: skip


@pytest.mark.parametrize("data", ERRORS, ids=lambda data: data[:30].decode("latin-1"))
def test_the_headers_are_on_every_error_of_the_framing(data: bytes, server: ServerProcess) -> None:
    answer = ask(server.port, data)
    assert promised_headers().items() <= answer.headers.items()


def test_the_headers_are_on_an_upgrade(server: ServerProcess, chat: Chat) -> None:
    user = chat.user()
    with RawClient(server.port) as client:
        client.send(
            b"GET /notifications/ws HTTP/1.1\r\n" + UPGRADE + f"Authorization: Bearer {user.token}\r\n\r\n".encode()
        )
        answer = client.answer()
    assert answer.status == 101
    assert promised_headers().items() <= answer.headers.items()


def test_thousands_of_channels_paths_and_users_make_no_series(
    tmp_path: Path, postgres: EmbeddedPostgres, database_url: str
) -> None:
    """Channels are made in the database and used through the server; only the label values matter."""
    with ServerProcess(tmp_path, DATABASE_URL=database_url).start() as server:
        alice = server.chat().user()
        guild = alice.guild()
        first = alice.channel(guild)
        run_apart(_multiply, database_url, guild)
        channels = [
            line["channel_id"] for line in alice.ok(alice.get(f"/guilds/{guild}/channels", params={"limit": "1000"}))
        ]
        series = _series(server)
        with alice.stream(first):
            for start in range(0, 2_000, 50):  # 500 values of a label would show
                _ask_for_many(
                    server.port, alice.token, [channels[(start + place) % len(channels)] for place in range(50)]
                )
        after = _series(server)
    assert after - series < 150, "route templates, statuses and reasons, whatever comes"
    assert after < 1_000


async def _multiply(url: str, guild: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(
        "INSERT INTO channels (channel_id, guild_id, name, created_at) SELECT gen_random_uuid(), $1, 'c' || n, now() "
        "FROM generate_series(1, 10000) AS n", guild,
    )  # fmt: skip
    await connection.execute(
        "INSERT INTO users (user_id, username, username_key, password_hash, created_at, updated_at) "
        "SELECT gen_random_uuid(), 'many' || n, 'many' || n, 'x', now(), now() FROM generate_series(1, 10000) AS n"
    )
    await connection.close()


def _ask_for_many(port: int, token: str, channels: list[str]) -> None:
    """Send pipelined requests for an unknown path, a channel, another user's guild, and with an invalid token, in turn."""
    requests = []
    for place, channel in enumerate(channels):
        target = (
            f"/no/such/{uuid.uuid4()}",
            f"/channels/{channel}",
            f"/guilds/{uuid.uuid4()}/members?x{channel}=1",
            "/users/me",
        )[place % 4]
        bearer = uuid.uuid4() if place % 4 == 3 else token
        requests.append(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {bearer}\r\n\r\n")
    with RawClient(port) as client:
        client.send("".join(requests).encode())
        statuses = {client.answer().status for _ in requests}
    assert statuses <= {200, 400, 401, 404}


def _series(server: ServerProcess) -> int:
    text = httpx.get(server.base_url + "/metrics", trust_env=False, verify=False).text
    return sum(not line.startswith("#") for line in text.splitlines())


def test_a_release_waits_for_its_schema_and_then_serves(tmp_path: Path, empty_url: str) -> None:
    """On a database without its newest migration, a release logs that and starts when the migration is done."""
    with ServerProcess(tmp_path, DATABASE_URL=empty_url).start(ready=False) as server:
        wait_until(lambda: server.status("/ready") == 503, what="an answer")
        components = httpx.get(server.base_url + "/ready", trust_env=False, verify=False).json()["components"]
        assert {line["name"]: line["status"] for line in components}["migrations"] != "ready"
        assert server.chat().http.get("/guilds").status_code in {401, 503}
        assert server.run_command("migrate").returncode == 0
        server.wait_ready()
        server.chat().user()


def test_the_schema_of_a_later_release_is_served(tmp_path: Path, database_url: str) -> None:
    async def step_ahead(url: str) -> None:
        connection = await asyncpg.connect(url)
        await connection.execute("ALTER TABLE log_events ADD COLUMN later text NOT NULL DEFAULT ''")
        await connection.execute("CREATE TABLE of_a_later_release (id bigint PRIMARY KEY)")
        await connection.execute("UPDATE alembic_version SET version_num = '0099'")
        await connection.close()

    run_apart(step_ahead, database_url)
    with ServerProcess(tmp_path, DATABASE_URL=database_url).start() as server:
        alice = server.chat().user()
        channel = alice.channel(alice.guild())
        alice.say(channel, "still here")
        assert texts(alice.history(channel)) == ["still here"]


def id_of(database_url: str) -> UUID:
    """Return the id by which replicas recognise their database."""
    found: list[UUID] = []

    async def look(url: str) -> None:
        connection = await asyncpg.connect(url)
        found.append(await connection.fetchval("SELECT database FROM log_history"))
        await connection.close()

    run_apart(look, database_url)
    return found[0]


def test_backup_and_restore(tmp_path: Path, database_url: str, empty_url: str) -> None:
    """The server runs meanwhile. Every event is restored, and clients from before are told that the log may have changed."""
    environment = os.environ | {"PATH": f"{postgres_programs()}:{os.environ['PATH']}"}  # of the server's version
    with ServerProcess(tmp_path, DATABASE_URL=database_url).start() as server:
        alice = server.chat().user()
        channel = alice.channel(alice.guild())
        for number in range(50):
            alice.say(channel, str(number))
        subprocess.run([DEPLOY / "backup.sh", database_url, tmp_path / "backup"], check=True, env=environment)
        assert (tmp_path / "backup").stat().st_mode & 0o077 == 0
        before = alice.ok(alice.get(f"/channels/{channel}"))["epoch"]
        restore = [DEPLOY / "restore.sh", tmp_path / "backup", empty_url]
        subprocess.run(restore, check=True, env=environment)
        assert id_of(database_url) != id_of(empty_url), "replicas of the copy do not hear those of the original"
        again = subprocess.run(restore, check=False, env=environment, capture_output=True, text=True)
        assert (again.returncode, again.stdout, again.stderr.count("\n")) == (1, "", 1), "not over what is there"
        assert re.match(r"restore.sh: the database has \d+ tables: rename it, create an empty one", again.stderr)
    with ServerProcess(tmp_path, DATABASE_URL=empty_url).start() as restored:
        back = restored.chat().login(alice.name)
        assert texts(back.history(channel)) == [str(number) for number in range(50)]
        back.say(channel, "and on")
        told = back.get(f"/channels/{channel}/events", params={"since": 50, "epoch": before})
        assert (told.status_code, told.json()["error"]) == (400, "invalid_since")
        now = back.ok(back.get(f"/channels/{channel}"))["epoch"]
        assert texts(back.history(channel, since=50, epoch=now)) == ["and on"]


def test_a_restore_whose_channels_keep_their_epochs_says_so(tmp_path: Path) -> None:
    """The second step failed: the data is restored, and the output names the remaining step."""
    psql = 'case "$*" in *openguild.session*) echo own ;; *--command=*) echo 0 ;; *) exit 3 ;; esac'
    for name, body in (("pg_restore", "exit 0"), ("psql", psql)):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "backup").touch()
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [DEPLOY / "restore.sh", tmp_path / "backup", "postgresql://db/chat"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "openguild-server migrate --new-epoch" in done.stderr


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("backup.sh",), "usage: deploy/backup.sh URL FILE [METRICS]"),
        (("backup.sh", "backup", "postgresql://db/chat"), "usage: deploy/backup.sh URL FILE [METRICS]"),
        (("restore.sh", "backup"), "usage: deploy/restore.sh FILE URL"),
        (
            ("restore.sh", "postgresql://db/chat", "backup"),
            "restore.sh: no backup can be read at postgresql://db/chat (usage: deploy/restore.sh FILE URL)",
        ),
    ],
)
def test_swapped_or_missing_arguments_are_told_in_one_line(command: tuple[str, ...], told: str, tmp_path: Path) -> None:
    name, *arguments = command
    done = subprocess.run([DEPLOY / name, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, told + "\n")


def test_on_call_a_namespace_without_servers_is_an_error(tmp_path: Path) -> None:
    oncall = OnCall(tmp_path, {})
    assert oncall.run("og admin set registration.enabled false").startswith("no pod of the server in namespace prod: ")
    assert oncall.status == 1


def test_a_password_is_in_no_process_list(tmp_path: Path) -> None:
    """A stand-in for each program records its arguments and environment."""
    (programs := tmp_path / "bin").mkdir()
    for name in ("pg_dump", "psql", "pg_restore"):
        stand_in = programs / name
        stand_in.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$@" "$PGPASSWORD" > {tmp_path}/{name}\ntouch "{tmp_path}/${{6##*/}}"\n'
            'case "$*" in *openguild.session*) echo own ;; esac\n'
        )
        stand_in.chmod(0o755)
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
    url = "postgresql://me:s%3Acr%40t%2F%C3%BC%25%7e@db:5432/chat?sslmode=require"
    (tmp_path / "database-url").write_text(url + "\n")
    for given in (url, str(tmp_path / "database-url")):
        subprocess.run([DEPLOY / "backup.sh", given, tmp_path / "backup"], check=True, env=environment)
        subprocess.run([DEPLOY / "restore.sh", tmp_path / "backup", given], check=True, env=environment)
        for name in ("pg_dump", "psql", "pg_restore"):
            *arguments, password = (tmp_path / name).read_text().splitlines()
            (tmp_path / name).unlink()
            assert "--dbname=postgresql://me@db:5432/chat?sslmode=require" in arguments
            assert password == "s:cr@t/ü%~"
    for refused in ("postgresql://db/chat?password=x", "postgresql://db/chat?a=b&password=x"):
        assert subprocess.run([DEPLOY / "backup.sh", refused, "x"], check=False, capture_output=True).returncode == 2


def test_the_log_of_a_release_is_looked_at_in_every_pod_and_past_what_is_no_json() -> None:
    text = OPERATIONS.replace("\\|", "|").replace("\\\n", "")
    commands = re.findall(r"kubectl logs ([^\n`]*)\| jq (-\w+) '([^']*)'", text)
    assert len(commands) == 2
    for options, flags, wanted in commands:
        assert "-l app.kubernetes.io/component=server --tail=-1 --since=15m" in options
        if shutil.which("jq") is not None:
            lines = 'openguild-server: no JSON\n{"level": "ERROR"}\n{"level": "INFO"}\n{"level": "ERROR", "last": 1}\n'
            done = subprocess.run(["jq", flags, wanted], input=lines, capture_output=True, text=True, check=True)
            assert done.stdout == '{"level":"ERROR"}\n{"level":"ERROR","last":1}\n'


def test_a_backup_that_fails_leaves_nothing(tmp_path: Path, postgres: EmbeddedPostgres) -> None:
    environment = os.environ | {"PATH": f"{postgres_programs()}:{os.environ['PATH']}"}
    done = subprocess.run(
        [DEPLOY / "backup.sh", postgres.database_url("nowhere"), tmp_path / "backup"],
        env=environment, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert list(tmp_path.iterdir()) == []
    stand_in = tmp_path / "bin/pg_dump"
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/sh\ntouch "${6#--file=}"\nexit 1\n')
    stand_in.chmod(0o755)
    full = tmp_path / "full"
    full.mkdir()
    environment = os.environ | {"PATH": f"{stand_in.parent}:{os.environ['PATH']}"}
    done = subprocess.run([DEPLOY / "backup.sh", postgres.url, full / "backup"], env=environment, check=False)
    assert (done.returncode, list(full.iterdir())) == (1, [])


STEPS = {
    "DROP TABLE channels": True, "ALTER TABLE users DROP COLUMN username": True, "ALTER TABLE a DROP b": True,
    "ALTER TABLE a RENAME TO b": True, "ALTER TABLE a RENAME COLUMN b TO c": True, "ALTER TABLE a ALTER COLUMN b TYPE text": True,
    "ALTER TABLE a ALTER b SET DATA TYPE text": True, "ALTER TABLE a ALTER COLUMN b SET NOT NULL": True,
    "ALTER TABLE a ADD COLUMN b text NOT NULL": True, "ALTER TABLE a ADD COLUMN b text NOT NULL, ADD COLUMN c text DEFAULT 1": True,
    "alter table a\n    drop column b": True, "DROP FUNCTION append_events_v1": True, "TRUNCATE sessions": True,
    "ALTER TABLE a ADD CONSTRAINT c CHECK (b > 0)": True, "op.drop_column('a', 'b')": True, "CREATE OR REPLACE FUNCTION f()": True,
    "CREATE TABLE b (id bigint NOT NULL PRIMARY KEY)": False, "ALTER TABLE a ADD COLUMN b text": False,
    "ALTER TABLE a ADD COLUMN b text NOT NULL DEFAULT ''": False, "ALTER TABLE a ADD COLUMN b text DEFAULT '' NOT NULL": False,
    "CREATE INDEX CONCURRENTLY a_b ON a (b)": False, "ALTER TABLE a ALTER COLUMN b DROP NOT NULL": False,
    "COMMENT ON TABLE a IS 'never DROP TABLE it'": False, "# RENAME nothing": False, "DELETE FROM a WHERE b": False,
}  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_contracts_is_refused(step: str) -> None:
    """Migrations only expand: the earlier release keeps working during and after one."""
    assert bool(script("deploy/validate.py").contractions(step)) is STEPS[step]


def test_every_step_after_the_first_only_expands() -> None:
    script("deploy/validate.py").migration_steps()


def test_the_tools_of_ci_are_asked_for_first_and_cannot_fail_it(tmp_path: Path) -> None:
    """If nothing can be installed, it names the missing tools and continues."""
    for name in ("id", "timeout", "tr", "env"):
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    done = subprocess.run(
        ["/bin/sh", DEPLOY / "ci/tools.sh"], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "tools: no prometheus here, its tests are skipped" in done.stdout
    assert "tools: no prometheus-alertmanager here, its tests are skipped" in done.stdout
    commands = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line.startswith(("make", "deploy"))]
    assert commands[0] == "deploy/ci/tools.sh"


def test_the_image_can_trace() -> None:
    assert "'.[server,otel]'" in (DEPLOY / "image/build.sh").read_text()
    pinned = (DEPLOY / "image/constraints.txt").read_text()
    for name in ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http", "protobuf", "requests"):
        assert re.search(rf"^{name}==\d", pinned, re.MULTILINE), name


def test_the_image_builds_without_docker_and_runs_as_its_user(tmp_path: Path) -> None:
    """The test uses the Dockerfile's script, in a clean directory; the server runs as uid 1000 and writes nothing."""
    if os.environ.get("OPENGUILD_IMAGE_TEST") != "1":
        pytest.skip("slow: OPENGUILD_IMAGE_TEST=1 runs it")
    source = tmp_path / "src"
    copied = (
        "pyproject.toml",
        "setup.py",
        "README.md",
        "LICENSE",
        "ext",
        "openguild_proto",
        "openguild_runtime",
        "deploy/image",
    )
    for name in copied:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("*.so", "*.c", "__pycache__"))
        else:
            shutil.copy(ROOT / name, target)
    app = tmp_path / "app"
    subprocess.run(["deploy/image/build.sh", app], cwd=source, check=True, env=os.environ | {"PYTHON": sys.executable})
    done = subprocess.run([app / "bin/openguild-server", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("openguild-server ")
    assert not (app / "bin/pip").exists()
