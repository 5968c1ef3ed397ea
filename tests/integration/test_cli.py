"""`openguild-server` as operators use it: output, exit statuses, effects (PROTOCOL 11.5)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from openguild_runtime.embedded import EmbeddedPostgres
from tests.support.chat import PASSWORD, Chat
from tests.support.deeds import new_id
from tests.support.server import ROOT, ServerProcess


@pytest.fixture
def seeded(server: ServerProcess, chat: Chat) -> str:
    """Create an account with the command line in the shared server's database; return its name."""
    name = f"Seed {new_id()[:8]}"
    done = server.run_command("seed-user", "--username", f"  {name} ", "--password-stdin", stdin="  long enough \n")
    assert re.fullmatch(rf"Seeded user '{name}' with id [0-9a-f-]{{36}}\n", done.stdout), done.stderr
    assert done.returncode == 0
    return name


def test_a_seeded_user_can_log_in(seeded: str, server: ServerProcess, chat: Chat) -> None:
    body = {"identifier": seeded, "secret": "long enough", "device": {"device_id": "d"}}
    assert chat.http.post("/sessions/login", json=body).status_code == 200
    again = server.run_command("seed-user", "--username", seeded, "--password", "whatever it is")
    assert (again.stdout, again.returncode) == (f"User '{seeded}' already exists; skipping\n", 0)


def test_server_roles(seeded: str, server: ServerProcess, chat: Chat) -> None:
    def run(command: str) -> str:
        done = server.run_command(command, "--username", seeded.upper(), "--role", "Moderator")
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert re.fullmatch(
        rf"Assigned server role 'moderator' to user '{seeded}' \(id: .{{36}}\)\n", run("assign-server-role")
    )
    assert re.fullmatch(
        rf"Removed server role 'moderator' from user '{seeded}' \(id: .{{36}}\)\n", run("revoke-server-role")
    )
    assert re.fullmatch(
        rf"User '{seeded}' \(id: .{{36}}\) did not have server role 'moderator'\n", run("revoke-server-role")
    )


def test_a_server_moderator_sees_every_guild_at_once(seeded: str, server: ServerProcess, chat: Chat) -> None:
    owner = chat.user()
    guild = owner.guild("hidden")
    body = {"identifier": seeded, "secret": "long enough", "device": {"device_id": "d"}}
    token = chat.http.post("/sessions/login", json=body).json()["access_token"]
    headers = {"authorization": f"Bearer {token}"}
    assert chat.http.get(f"/guilds/{guild}", headers=headers).status_code == 404
    server.run_command("assign-server-role", "--username", seeded, "--role", "moderator")
    assert chat.http.get(f"/guilds/{guild}", headers=headers).status_code == 200
    listed = chat.http.get("/guilds?all=true", headers=headers).json()
    assert guild in {line["guild_id"] for line in listed}


def test_guild_and_channel_roles(seeded: str, server: ServerProcess, chat: Chat) -> None:
    owner = chat.user()
    guild = owner.guild()
    channel = owner.channel(guild)
    done = server.run_command("assign-guild-role", "--username", seeded, "--guild-id", guild, "--role", "admin")
    assert done.stdout == f"Assigned guild role 'admin' to user '{seeded}' in guild {guild}\n"
    done = server.run_command("assign-channel-role", "--username", seeded, "--channel-id", channel, "--role", "viewer")
    assert done.stdout == f"Assigned channel role 'viewer' to user '{seeded}' in channel {channel}\n"
    members = {line["username"]: line["role"] for line in owner.ok(owner.get(f"/guilds/{guild}/members"))}
    assert members[seeded] == "admin"
    done = server.run_command("assign-guild-role", "--username", owner.name, "--guild-id", guild, "--role", "guest")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert f"'{owner.name}' is the only owner of guild '{guild}'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("seed-user", "--username", " ", "--password", "long enough"), "username must be provided"),
        (("seed-user", "--username", "x", "--password", "short"), "at least 8 characters"),
        (("seed-user", "--username", "x", "--password-file", "/no/such/file"), "password-file cannot be read"),
        (("assign-server-role", "--username", "x", "--role", " "), "role must be provided"),
        (("assign-server-role", "--username", " ", "--role", "admin"), "username must be provided"),
        (
            ("assign-server-role", "--username", "x", "--role", "king"),
            "unsupported role 'king'; expected one of [\"owner\"",
        ),
        (("assign-server-role", "--username", "nobody here", "--role", "admin"), "user 'nobody here' not found"),
        (("assign-guild-role", "--username", "x", "--guild-id", "7", "--role", "admin"), "guild-id must be a UUID"),
    ],
)
def test_failures_are_one_line_and_exit_1(arguments: tuple[str, ...], expected: str, server: ServerProcess) -> None:
    done = server.run_command(*arguments)
    assert done.returncode == 1
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize(
    ("command", "purpose"),
    [("seed-user", "seed users"), ("assign-server-role", "assign server roles"), ("revoke-server-role", "revoke server roles"),
     ("assign-guild-role", "assign guild roles"), ("assign-channel-role", "assign channel roles")],
)  # fmt: skip
def test_without_a_database(command: str, purpose: str, tmp_path: Path) -> None:
    arguments = {"seed-user": ("--password", "long enough")}.get(command, ("--role", "admin"))
    if "guild" in command or "channel" in command:
        arguments += (f"--{command.split('-')[1]}-id", new_id())
    done = ServerProcess(tmp_path).run_command(command, "--username", "x", *arguments)
    assert (done.returncode, done.stderr) == (1, f"openguild-server: database_url must be configured to {purpose}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nonsense",), "expected a URL"),
        (("http://[::1",), "expected a URL"),
        (("http://127.0.0.1:x",), "expected a URL"),
        (("http://127.0.0.1:99999", "--username", "x"), "expected a URL"),
        (("http://127.0.0.1:1", "--only", "x"), "expected one of live"),
    ],
)
def test_a_probe_of_nothing_is_wrong_usage(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = ServerProcess(tmp_path).run_command("probe", *arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert said in done.stderr


def test_usage_errors_exit_2(tmp_path: Path) -> None:
    for arguments in (("--no-such-flag",), ("no-such-command",), ("seed-user",), ("config", "explode")):
        assert ServerProcess(tmp_path).run_command(*arguments).returncode == 2


def test_a_start_without_a_store_stops_with_one_line(tmp_path: Path) -> None:
    done = ServerProcess(tmp_path).run_command()
    assert done.returncode == 1
    assert "storage: is not set" in done.stderr.splitlines()[-1]


WRONG = "messaging.replay_window: is not an integer; write one, such as 50"


@pytest.mark.parametrize("command", [(), ("migrate",), ("migrate", "--wait")])
def test_a_start_that_fails_is_a_record_where_the_log_is_json(command: tuple[str, ...], tmp_path: Path) -> None:
    done = ServerProcess(tmp_path, MESSAGING__REPLAY_WINDOW="many").run_command(*command, OPENGUILD_LOG="off")
    (line,) = done.stderr.splitlines()
    record = json.loads(line)
    assert (done.returncode, record["level"], record["target"]) == (1, "ERROR", "openguild.server")
    assert WRONG in record["message"]


@pytest.mark.parametrize(
    ("settings", "files", "is_json"),
    [
        ({"LOG_FORMAT": "JSON", "NO_SUCH_KEY": 1}, {}, True),
        ({"LOG_FORMAT": "compact"}, {}, False),
        ({"LOG_FORMAT": "xml"}, {}, False),
        ({}, {}, False),
        ({}, {"server.toml": 'log_format = "json"'}, True),
        ({}, {"server.toml": 'log_format = "json"', "server.local.yaml": "log_format: compact"}, False),
        ({"LOG_FORMAT": "json"}, {"server.toml": "["}, True),
        ({}, {"server.toml": 'log_format = "json"\n['}, False),
        ({}, {"server.toml": "log_format = 7"}, False),
    ],
)  # fmt: skip
def test_where_the_format_that_was_asked_for_is_found(
    settings: dict[str, object], files: dict[str, str], is_json: bool, tmp_path: Path
) -> None:
    (tmp_path / "config").mkdir()
    for name, text in files.items():
        (tmp_path / "config" / name).write_text(text)
    without = () if "LOG_FORMAT" in settings else ("LOG_FORMAT",)
    done = ServerProcess(tmp_path, without=without, **{"MESSAGING__REPLAY_WINDOW": "many"} | settings).run_command()
    (line,) = done.stderr.splitlines()
    assert (done.returncode, line.startswith("{"), line.startswith("openguild-server: ")) == (1, is_json, not is_json)


def test_commands_for_people_fail_in_words(tmp_path: Path) -> None:
    done = ServerProcess(tmp_path, MESSAGING__REPLAY_WINDOW="many").run_command("config", "check")
    assert (done.returncode, done.stderr.startswith("openguild-server: ")) == (1, True)


def test_a_taken_address_stops_the_start(server: ServerProcess, tmp_path: Path) -> None:
    done = ServerProcess(tmp_path, "--storage", "memory", port=server.port).run_command()
    assert done.returncode == 1
    assert "address already in use" in done.stderr.splitlines()[-1].lower()


def test_config_check_and_dump(server: ServerProcess, tmp_path: Path) -> None:
    checked = server.run_command("config", "check")
    assert (checked.returncode, checked.stdout) == (0, "The configuration is valid\n")
    dumped = server.run_command("config", "dump")
    assert 'session.signing_key = "***"' in dumped.stdout
    assert f"port = {server.port}" in dumped.stdout
    assert "AAECAwQF" not in dumped.stdout
    wrong = ServerProcess(tmp_path, MESSAGING__REPLAY_WINDOW="many").run_command("config", "check")
    assert wrong.returncode == 1
    assert "messaging.replay_window" in wrong.stderr


def test_keygen_makes_a_usable_key(tmp_path: Path) -> None:
    done = ServerProcess(tmp_path).run_command("keygen")
    lines = dict(line.split(" = ") for line in done.stdout.splitlines())
    assert lines.keys() == {"signing_key", "verifying_key", "fingerprint"}
    settings = {
        "SESSION__SIGNING_KEY": lines["signing_key"],
        "SESSION__FALLBACK_VERIFYING_KEYS": lines["verifying_key"],
    }
    assert ServerProcess(tmp_path, "--storage", "memory", **settings).run_command("config", "check").returncode == 0
    assert ServerProcess(tmp_path).run_command("keygen").stdout != done.stdout


def test_keygen_prints_the_public_key_of_a_signing_key(tmp_path: Path) -> None:
    command = ServerProcess(tmp_path)
    signing, *public = command.run_command("keygen").stdout.splitlines()
    done = command.run_command("keygen", "--public", stdin=signing.removeprefix("signing_key = ") + "\n")
    assert done.stdout.splitlines() == public
    wrong = command.run_command("keygen", "--public", stdin=signing)
    assert wrong.returncode == 1
    assert wrong.stderr == "openguild-server: keygen: standard input: a signing key must be base64url without padding\n"


def test_probe(server: ServerProcess, tmp_path: Path) -> None:
    done = server.run_command("probe", server.base_url)
    assert done.returncode == 0, done.stdout
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["ok", step] for step in ("live", "health", "ready", "version", "authentication", "headers")
    ]
    away = ServerProcess(tmp_path)
    failed = away.run_command("probe", away.base_url)
    assert failed.returncode == 1
    assert failed.stdout.startswith("FAIL live")


def test_migrate_brings_the_schema_up_to_date(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    shown = ServerProcess(tmp_path).run_command("migrate", "--sql")
    assert shown.returncode == 0
    assert "CREATE TABLE log_events" in shown.stdout
    assert "pg_advisory_xact_lock" in shown.stdout
    migrating = ServerProcess(tmp_path, DATABASE_URL=postgres.url)
    for _ in range(2):
        done = migrating.run_command("migrate")
        assert (done.returncode, done.stdout) == (0, "The schema is at revision 0001\n"), done.stderr
    wrong = ServerProcess(tmp_path, DATABASE_URL=postgres.url.replace("@127", "x@127")).run_command("migrate")
    assert wrong.returncode == 1
    assert "it refuses the password" in wrong.stderr
    assert postgres.url.rpartition("@")[0].rpartition(":")[2] not in wrong.stderr


def test_version_and_help(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert server.run_command("--version").stdout == f"openguild-server {version}\n", "stale? make lint installs anew"
    usage = " ".join(server.run_command("--help").stdout.split())
    assert "subcommand" in usage
    for flag, name in (("--database-url", "DATABASE_URL"), ("--nats-url", "NATS__URL"),
                       ("--session-signing-key", "SESSION__SIGNING_KEY")):  # fmt: skip
        secret = f"secret, and visible in process lists: prefer OPENGUILD_SERVER__{name}_FILE"
        assert re.search(f"{flag} VALUE [^-]+; {re.escape(secret)}", usage)
    assert "--workers VALUE number of worker processes; also OPENGUILD_SERVER__WORKERS" in usage


def test_nothing_is_written_into_the_working_directory(tmp_path: Path) -> None:
    done: subprocess.CompletedProcess[str] = ServerProcess(tmp_path).run_command("config", "dump")
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_probe_with_an_account_posts_and_hears_it(server: ServerProcess, chat: Chat, tmp_path: Path) -> None:
    user = chat.user()
    (tmp_path / "password").write_text(PASSWORD + "\n")
    textfile = tmp_path / "openguild_probe.prom"
    for _ in range(2):  # the second run changes nothing
        done = server.run_command(
            "probe", "--username", user.name, "--password-file", str(tmp_path / "password"),
            "--slo", "--window", "1", "--prometheus", str(textfile), server.base_url,
        )  # fmt: skip
        lines = [line.split() for line in done.stdout.splitlines()]
        steps, failed = [step for _, step, *_ in lines], [line[1:3] for line in lines if line[0] == "FAIL"]
        assert failed in ([], [["slo", "latency"]]), done.stdout + done.stderr  # a busy machine may be too slow
        assert steps[:10] == [
            "live", "health", "ready", "version", "authentication", "headers", "login", "channel", "post", "stream",
        ]  # fmt: skip
        assert (steps[10], steps.count("slo")) == ("metrics", 6)
    assert len(user.ok(user.get("/guilds"))) == 1
    written = textfile.read_text()
    assert 'openguild_probe_success{step="stream"} 1' in written
    assert 'openguild_probe_duration_seconds{step="post"} 0.' in written
    wrong = server.run_command("probe", "--username", user.name, server.base_url, stdin="not the password\n")
    assert (wrong.returncode, "FAIL login" in wrong.stdout, "401 invalid_credentials" in wrong.stdout) == (
        1,
        True,
        True,
    )
    only = server.run_command("probe", "--only", "ready", server.base_url)
    assert (only.returncode, len(only.stdout.splitlines())) == (0, 1)


def test_migrate_wait_ends_when_somebody_has_migrated(empty_url: str, tmp_path: Path) -> None:
    waiting = subprocess.Popen(
        [sys.executable, "-m", "openguild_runtime.cli.main", "--database-url", empty_url, "migrate", "--wait"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert waiting.stderr is not None
    assert "schema is not current" in waiting.stderr.readline()
    assert ServerProcess(tmp_path, DATABASE_URL=empty_url).run_command("migrate").returncode == 0
    stdout, _ = waiting.communicate(timeout=20)
    assert (waiting.returncode, stdout) == (0, "The schema serves revision 0001\n")


def test_the_core_alone_says_what_to_install(tmp_path: Path) -> None:
    """An interpreter without installed packages imports the core, as after `pip install openguild` without its extra `server`."""
    module, _, function = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"][
        "openguild-server"
    ].partition(":")
    script = f"import sys; sys.path.append({str(ROOT)!r}); from {module} import {function}; sys.exit({function}())"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        r"openguild-server: anyio is not installed: pip install 'openguild\[server\]' .*\n", done.stderr
    )


def test_the_client_without_anyio_says_what_to_install() -> None:
    script = "import sys; sys.modules['anyio'] = None; import openguild_runtime.client"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60, cwd=ROOT
    )
    assert done.stderr.endswith("openguild_runtime.client needs anyio: pip install 'openguild[server]'\n")


@pytest.mark.parametrize(
    "command",
    [("config", "dump"), ("migrate", "--sql"), ("completion", "bash"), ("--help",), ("probe", "http://127.0.0.1:1")],
    ids=" ".join,
)
def test_a_reader_that_ends_first_changes_nothing(command: tuple[str, ...], tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, STORAGE="memory")
    expected = server.run_command(*command)
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "openguild_runtime.cli.entry_point", *command], env=server.environment(), cwd=tmp_path,
            stdout=writing, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (expected.returncode, expected.stderr)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("command", [("config", "dump"), ("keygen",), ("--help",)], ids=" ".join)
def test_output_that_cannot_be_written_fails_in_one_line(command: tuple[str, ...], tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, STORAGE="memory")
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "openguild_runtime.cli.entry_point", *command], env=server.environment(), cwd=tmp_path,
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "openguild-server: standard output: No space left on device\n")


INTERRUPTED = """
import sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "openguild_runtime.cli.main":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
from openguild_runtime.cli.entry_point import main
sys.exit(main())
"""


def test_ctrl_c_during_the_imports_prints_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_the_chat_needs_a_terminal(tmp_path: Path) -> None:
    done = ServerProcess(tmp_path, STORAGE="memory").run_command("chat")
    assert done.returncode == 1
    assert done.stderr == "openguild-server: chat: needs a terminal; a program uses the client of docs/client.md\n"
