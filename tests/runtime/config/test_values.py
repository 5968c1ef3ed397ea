"""A bad value for every key stops `config check` and the start alike: one line, the key, exit status 1."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from openguild_runtime.cli.main import main
from openguild_runtime.config.declared import keys_of
from openguild_runtime.config.layers import ConfigError
from openguild_runtime.config.server_config import ServerConfig, load
from tests.support.server import ROOT, ServerProcess

P = "OPENGUILD_SERVER__"
SEED = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
NUMBER = "ten"
BAD = {
    "bind_addr": "127.0.0.1:0",
    "host": "example.org",
    "port": "99999",
    "server_name": "https://chat.example.org",
    "log_format": "xml",
    "database_url": "mysql://hunter2@x",
    "storage": "sqlite",
    "embedded": "perhaps",
    "data_dir": " ",
    "admin_socket": "/tmp/" + "x" * 100,
    "workers": "65",
    "trusted_proxies": "10.0.0.1/8",
    "metrics.enabled": "perhaps",
    "metrics.max_age_secs": "-1",
    "metrics.bind_addr": "9090",
    "cors.allowed_origins": "chat.example.org",
    "messaging.max_messages_per_user_per_window": "0",
    "messaging.max_messages_per_ip_per_window": NUMBER,
    "messaging.rate_limit_window_secs": "1.5",
    "messaging.replay_window": "-1",
    "messaging.queue_capacity": "65537",
    "http.head_timeout_secs": "0",
    "http.body_timeout_secs": "nan",
    "http.idle_timeout_secs": "3601",
    "http.request_timeout_secs": "0",
    "websocket.max_connections": "0",
    "websocket.max_connections_per_user": NUMBER,
    "websocket.max_connections_per_address": NUMBER,
    "websocket.max_frames_per_minute": "-1",
    "websocket.max_message_bytes": "1",
    "websocket.ping_interval_secs": NUMBER,
    "websocket.write_timeout_secs": "-1",
    "federation.signing_key": "hunter2",
    "federation.key_id": " ",
    "federation.trusted_servers": "far.example.org",
    "federation.mode": "half",
    "federation.previous_signing_key": "hunter2",
    "federation.previous_key_id": " ",
    "federation.base_url": "chat.example.org",
    "federation.allowed_servers": "Far.example.org",
    "federation.denied_servers": "far.example.org:443",
    "federation.quarantined_servers": "1.2.3",
    "federation.allow_private_addresses": "maybe",
    "federation.addresses": "far.example.org",
    "federation.take_guilds_from": "-no-",
    "federation.owner_lost_after_secs": "0",
    "federation.ca_file": " ",
    "federation.max_requests_per_server_per_window": "0",
    "federation.max_megabytes_per_server_per_window": NUMBER,
    "federation.max_proposals_per_server_per_window": NUMBER,
    "federation.max_joins_per_server_per_window": NUMBER,
    "federation.max_invites_per_server_per_window": "0",
    "federation.max_owner_reads_per_user_per_window": "0",
    "federation.max_discoveries_per_window": "0",
    "federation.window_secs": "0",
    "mls.enabled": "2",
    "mls.ciphersuite": " ",
    "mls.identities": None,
    "session.signing_key": "hunter2",
    "session.fallback_verifying_keys": "short",
    "session.access_ttl_secs": "0",
    "session.refresh_ttl_secs": "43199",
    "session.max_logins_per_address_per_window": NUMBER,
    "session.max_logins_per_account_per_window": "0",
    "session.max_refreshes_per_address_per_window": "0",
    "session.max_refreshes_per_account_per_window": NUMBER,
    "session.login_window_secs": NUMBER,
    "guilds.max_owned_per_user": "0",
    "guilds.max_joined_per_user": "0",
    "guilds.max_channels_per_guild": NUMBER,
    "guilds.max_bans_per_guild": "5001",
    "guilds.max_invites_per_guild": "-1",
    "guilds.max_writes_per_user_per_window": "1000001",
    "guilds.write_window_secs": "0",
    "search.max_searches_per_user_per_window": "0",
    "search.window_secs": "1.5",
    "messaging.max_typing_per_user_per_window": "0",
    "messaging.max_queries_per_user_per_window": "0",
    "messaging.query_window_secs": "0",
    "messaging.max_reads_per_user_per_window": "0",
    "presence.enabled": "maybe",
    "presence.max_guild_members": "0",
    "nats.url": "http://hunter2@x",
    "nats.credentials_file": " ",
    "nats.ca_file": " ",
    "nats.cert_file": " ",
    "nats.key_file": " ",
    "nats.min_replicas": "0",
    "drain.delay_secs": "-1",
    "drain.window_secs": "inf",
    "database.pool_size": "501",
    "database.statement_timeout_secs": NUMBER,
    "database.statement_cache_size": "-1",
    "database.replica_urls": "mysql://standby",
    "database.replica_wait_secs": "0",
    "registration.enabled": "no way",
    "tracing.otlp_endpoint": "collector:4318",
    "media.endpoint": "minio",
    "media.bucket": " ",
    "media.access_key": " ",
    "media.secret_key": " ",
}


def test_the_table_knows_every_key() -> None:
    assert set(BAD) == {key.name for key in keys_of(ServerConfig)}


@pytest.mark.parametrize("arguments", [["config", "check"], []], ids=["check", "start"])
@pytest.mark.parametrize("key", BAD)
def test_a_bad_value_stops_with_one_line(
    key: str, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, value = P + key.upper().replace(".", "__"), BAD[key]
    for present in [name for name in os.environ if name.startswith(P)]:
        monkeypatch.delenv(present)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(*((name, value) if value is not None else (name + "__0", " ")))
    assert main(arguments) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1, shown.err
    assert key in shown.err
    assert f"set by {name}" in shown.err
    assert "hunter2" not in shown.err
    for raw in ("Input should be", "pydantic", "instance of", "valid dictionary"):
        assert raw not in shown.err


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("database_url", "garbage"),
        ("database_url", "postgresql://u:hunter2@h:99999/d"),
        ("database_url", "postgresql://u:hun/ter2@h/d"),
        ("database_url", "postgresql://u:hunter2@hunter2@h/d"),
        ("database_url", "postgresql://u:hunter2@hunter2@a,b:5433/d"),
        ("database_url", "postgresql://u:12/hunter2@h/d"),
        ("database_url", "postgresql://u:hunter2@hun/ter2@h/d"),
        ("database_url", "postgresql://u:12#hunter2@h/d"),
        ("database_url", "postgresql://u:12?hunter2@h/d"),
        ("media.endpoint", "http://u:hunter2@hunter2@h/d"),
        ("database_url", "postgresql://h/d?sslmode=perhaps"),
        ("nats.url", "garbage"),
        ("nats.url", "nats://h:99999"),
        ("nats.url", "nats://"),
        ("nats.url", "nats://a b:4222"),
        ("server_name", "my server"),
        ("server_name", "chat.example.org/path"),
        ("tracing.otlp_endpoint", "http://collector:0"),
        ("media.endpoint", "https://"),
        ("server_name", "\udcff"),
    ],
)
def test_more_bad_texts(key: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as failure:
        load({}, {P + key.upper().replace(".", "__"): value}, tmp_path)
    line = str(failure.value)
    assert f"{key}: " in line
    assert "\n" not in line
    assert "hunter2" not in line


@pytest.mark.parametrize("text", ["postgresql://u@h/d\n", " postgresql://u@h/d", "postgresql://u@h/a b"])
def test_a_line_break_in_a_url_is_told(text: str, tmp_path: Path) -> None:
    """As in a secret that was written with one; a file of secrets may end with it."""
    with pytest.raises(ConfigError, match="database_url: contains a space or a line break"):
        load({}, {P + "DATABASE_URL": text}, tmp_path)


@pytest.mark.parametrize("password", ["a@b7", "a/b7", "1/b7", "a#b7", "1#b7", "1?b7", "a@b/7", "a@b@7"])
def test_a_password_that_must_be_encoded_is_told_how(password: str, tmp_path: Path) -> None:
    for key in ("DATABASE_URL", "DATABASE__REPLICA_URLS__0"):
        urls = {P + "DATABASE_URL": "postgresql://h/d", P + key: f"postgresql://u:{password}@h/d"}
        with pytest.raises(ConfigError) as failure:
            load({}, urls, tmp_path)
        line = str(failure.value)
        assert ", write " in line
        assert not any(part in line for part in ("a@", "b7", "b@", "a/b"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("port = true", "port: is not a number"),
        ("port = 1.5", "port: is not an integer"),
        ('port = ""', "port: is not an integer"),
        ("server_name = 5", "server_name: is not a string; put it in quotes"),
        ("data_dir = 5", "data_dir: is not a path; put it in quotes"),
        ("messaging = 5", "messaging: is a section, not a value; write its keys under it: max_messages"),
        ("messaging.replay_window = []", "messaging.replay_window: is not an integer"),
        ("cors.allowed_origins = 'https://a.example'", 'cors.allowed_origins: is not a list; write one, such as ["a"'),
        ("drain.delay_secs = false", "drain.delay_secs: is not a number"),
        ("storage = 5", "storage: unknown value; expected 'postgres' or 'memory'"),
        ("federation.trusted_servers = ['x']", "trusted_servers.0: is a section, not a value"),
        ("[[federation.trusted_servers]]\nserver_name = 'x'", "trusted_servers.0.verifying_key: is missing"),
        ("[port]\nx = 1", "port: is not an integer"),
        ("nats.url = 5", "nats.url: is not a string"),
        ("nats.url = []", "nats.url: is neither a URL nor a list of URLs"),
        ("nats.url = ['nats://a', 5]", "nats.url: is neither a URL nor a list of URLs"),
        ("nats.url = ['nats://a', 'b']", "nats.url: is neither a URL nor a list of URLs"),
        ("nats.url = ['nats://a', 'ws://b']", "nats.url: its server 2 of 2: WebSocket URLs of NATS are not supported"),
        ("workers = 65", "workers: must be more than 0 and at most 64"),
    ],
)
def test_values_of_the_wrong_kind_in_a_file(text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/server.toml").write_text(text)
    with pytest.raises(ConfigError) as failure:
        load({}, {}, tmp_path)
    line = str(failure.value)
    assert expected in line
    assert "set by config/server.toml" in line
    assert "\n" not in line


def test_a_section_that_a_file_sets_as_a_value_is_told_of_the_file(tmp_path: Path) -> None:
    """Not of the environment, whose key of that section is right."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config/server.toml").write_text("messaging = 5")
    with pytest.raises(ConfigError, match=r"messaging: is a section, not a value.*\(set by config/server\.toml\)"):
        load({}, {P + "MESSAGING__REPLAY_WINDOW": "5"}, tmp_path)


def test_servers_of_nats_may_be_a_list_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/server.toml").write_text("nats.url = ['nats://u:p%2C@a:4222', 'tls://b']")
    config = load({}, {}, tmp_path)
    assert config.nats.url is not None
    assert config.nats.url.get_secret_value() == "nats://u:p%2C@a:4222,tls://b"
    assert config.shown()["nats.url"] == "***"


def test_good_values_of_many_forms(tmp_path: Path) -> None:
    for key, values in {
        "DATABASE_URL": (
            "postgres://h",
            "postgresql:///d?host=/run/postgresql",
            "postgresql://u:p%2F@a:1,b:2,[::1]:3/d?sslmode=verify-full",
        ),
        "NATS__URL": ("nats://h", "tls://u:p@h.example:4222", "nats://[::1]:4222", "nats://u:p%40@a:4222,tls://[::1]"),
        "SERVER_NAME": ("localhost", "chat.example.org:8448", "[::1]:8448", "a_b.example", "10.0.0.1"),
        "MLS__CIPHERSUITE": ("SOME_OTHER",),
        "CORS__ALLOWED_ORIGINS": ("*", "https://a.example:8443"),
    }.items():
        for value in values:
            load({}, {P + key: value}, tmp_path)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"NATS__CA_FILE": "/nope"}, "nats.ca_file: the file /nope cannot be read (no such file"),
        (
            {"NATS__CERT_FILE": "/nope", "NATS__KEY_FILE": "/x"},
            "nats.cert_file: the file /nope cannot be read (no such",
        ),
        ({"NATS__CERT_FILE": "/nope"}, "nats.cert_file: is only valid together with nats.key_file"),
        (
            {"NATS__CERT_FILE": ROOT / "pyproject.toml", "NATS__KEY_FILE": ROOT / "pyproject.toml"},
            "nats.cert_file and nats.key_file: are not a certificate and its key: use the PEM files",
        ),
        ({"FEDERATION__CA_FILE": "/nope"}, "federation.ca_file: the file /nope cannot be read (no such file"),
        (
            {"FEDERATION__CA_FILE": ROOT / "pyproject.toml"},
            "pyproject.toml contains no certificate: use a PEM file with CA certificates",
        ),
        ({"TRUSTED_PROXIES": "fe80::1%eth0"}, "trusted_proxies.0: is not a network"),
        ({"NATS__CREDENTIALS_FILE": "/"}, "nats.credentials_file: the file / cannot be read (is a directory)"),
        (
            {"NATS__CA_FILE": ROOT / "pyproject.toml"},
            "pyproject.toml contains no certificate: use a PEM file with CA certificates",
        ),
        (
            {"NATS__CREDENTIALS_FILE": ROOT / "pyproject.toml"},
            "pyproject.toml contains no NATS USER JWT: use a NATS .creds",
        ),
        (
            {"NATS__URL": "nats://u:hunter2@a:4222,b:4222"},
            "nats.url: each server of a list must begin with nats:// or tls://",
        ),
        ({"ADMIN_SOCKET": "/nope/admin.sock"}, "admin_socket: the directory /nope does not exist: create it"),
        ({"STORAGE": "postgres"}, "storage: postgres requires a database: set database_url"),
    ],
)
@pytest.mark.parametrize("arguments", [("config", "check"), ()], ids=["check", "start"])
def test_what_a_start_needs_is_checked_too(
    settings: dict[str, object], expected: str, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    done = ServerProcess(tmp_path, **{"STORAGE": "memory"} | settings).run_command(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1, done.stderr
    assert expected in done.stderr


def test_the_check_lists_all_that_a_start_needs(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, STORAGE="postgres", NATS__CA_FILE="/nope", ADMIN_SOCKET="/nope/admin.sock")
    del server.settings["SESSION__SIGNING_KEY"]
    done = server.run_command("config", "check")
    assert (done.returncode, done.stdout) == (1, "")
    keys = ["storage", "session.signing_key", "nats.ca_file", "admin_socket"]
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == keys
    assert all(line.startswith("openguild-server: ") for line in done.stderr.splitlines())


def test_an_address_that_is_taken_or_foreign_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        for settings, expected in (
            ({"PORT": taken}, f"host and port: cannot listen on 127.0.0.1:{taken} (address already in use): choose"),
            ({"BIND_ADDR": f"127.0.0.1:{taken}"}, f"bind_addr: cannot listen on 127.0.0.1:{taken}"),
            ({"METRICS__BIND_ADDR": f"127.0.0.1:{taken}"}, f"metrics.bind_addr: cannot listen on 127.0.0.1:{taken}"),
            ({"HOST": "192.0.2.1"}, "host and port: cannot listen on 192.0.2.1:"),
        ):
            done = ServerProcess(tmp_path, "--storage", "memory", **settings).run_command()
            assert done.returncode == 1
            assert expected in done.stderr.splitlines()[-1]


def test_without_opentelemetry_the_check_says_so(tmp_path: Path) -> None:
    """The interpreter is told that the package cannot be found, as where the extra is not installed."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Without:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.startswith('opentelemetry'):\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Without())\n"
    )
    server = ServerProcess(tmp_path, "--storage", "memory", TRACING__OTLP_ENDPOINT="http://collector:4318")
    checked = server.run_command("config", "check", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert (checked.returncode, checked.stdout) == (1, "")
    assert "tracing.otlp_endpoint: OpenTelemetry is not installed: pip install 'openguild[otel]'" in checked.stderr


def test_userinfo_of_a_url_is_hidden(tmp_path: Path) -> None:
    config = load(
        {}, {P + "TRACING__OTLP_ENDPOINT": "https://u:hunter2@h:4318/x@y", "MEDIA_ENDPOINT": "http://k@m"}, tmp_path
    )
    assert config.shown()["tracing.otlp_endpoint"] == "https://***@h:4318/x@y"
    assert config.shown()["media.endpoint"] == "http://***@m"
