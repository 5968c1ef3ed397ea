"""The layers and the one line that says what is wrong (PROTOCOL 11.4)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from openguild_runtime.config.declared import keys_of
from openguild_runtime.config.layers import ConfigError, ignored_names, overridden_names
from openguild_runtime.config.server_config import ServerConfig, load
from openguild_runtime.server.start_checks import require_servable

SEED = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
PUBLIC = "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"
P = "OPENGUILD_SERVER__"


def configured(directory: Path, flags: dict[str, Any] | None = None, **environ: str) -> ServerConfig:
    return load(flags or {}, environ, directory)


def refused(directory: Path, flags: dict[str, Any] | None = None, **environ: str) -> str:
    with pytest.raises(ConfigError) as failure:
        configured(directory, flags, **environ)
    line = str(failure.value)
    assert "\n" not in line
    return line


def test_defaults(tmp_path: Path) -> None:
    config = configured(tmp_path)
    assert config.listen == ("0.0.0.0", 8080)
    assert config.server_name == "localhost"
    assert config.messaging.max_messages_per_user_per_window == 60
    assert config.messaging.max_messages_per_ip_per_window == 200
    assert config.messaging.replay_window == 50
    assert config.messaging.queue_capacity == 256
    assert config.websocket.max_connections == 20_000
    assert config.metrics.enabled is True


def test_a_pool_has_room_for_more_than_what_is_reserved(tmp_path: Path) -> None:
    line = refused(tmp_path, **{P + "DATABASE__POOL_SIZE": "6"})
    assert line == (
        "failed to build configuration: database.pool_size: is too small, because 6 are reserved for posts, access and health; "
        f"write at least 7 (set by {P}DATABASE__POOL_SIZE)"
    )
    assert configured(tmp_path, **{P + "DATABASE__POOL_SIZE": "7"}).database.pool_size == 7


def test_later_layers_win(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/server.toml").write_text('port = 1001\nserver_name = "file"\n[messaging]\nreplay_window = 7\n')
    assert configured(tmp_path).port == 1001
    (tmp_path / "config/server.local.yaml").write_text("port: 1002\n")
    assert configured(tmp_path).port == 1002
    assert configured(tmp_path, **{P + "PORT": "1003"}).port == 1003
    config = configured(tmp_path, {"port": "1004"}, **{P + "PORT": "1003"})
    assert (config.port, config.server_name, config.messaging.replay_window) == (1004, "file", 7)


@pytest.mark.parametrize(
    ("name", "text"), [("server.json", '{"port": 9}'), ("server.yaml", "port: 9"), ("server.toml", "port = 9")]
)
def test_every_format(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / name).write_text(text)
    assert configured(tmp_path).port == 9


def test_environment_names_are_case_insensitive(tmp_path: Path) -> None:
    assert configured(tmp_path, openguild_server__Messaging__Replay_Window="3").messaging.replay_window == 3


def test_lists_by_index_and_by_comma(tmp_path: Path) -> None:
    by_comma = configured(tmp_path, **{P + "CORS__ALLOWED_ORIGINS": "https://a.example, https://b.example"})
    by_index = configured(
        tmp_path,
        **{P + "CORS__ALLOWED_ORIGINS__0": "https://a.example", P + "CORS__ALLOWED_ORIGINS__1": "https://b.example"},
    )
    assert by_comma.cors == by_index.cors
    trusted = P + "FEDERATION__TRUSTED_SERVERS__0__"
    config = configured(
        tmp_path,
        **{trusted + "SERVER_NAME": "far", trusted + "KEY_ID": "1", trusted + "VERIFYING_KEY": PUBLIC},
        **{P + "FEDERATION__SIGNING_KEY": SEED},
    )
    assert config.federation.trusted_servers[0].server_name == "far"
    assert configured(tmp_path, **{P + "TRUSTED_PROXIES": "10.0.0.0/8"}).trusted_proxies == ("10.0.0.0/8",)


def test_plain_names_are_fallbacks(tmp_path: Path) -> None:
    config = configured(tmp_path, DATABASE_URL="postgresql://plain", NATS_URL="nats://plain", MEDIA_BUCKET="b")
    assert config.database_url is not None
    assert config.database_url.get_secret_value() == "postgresql://plain"
    assert config.nats.url is not None
    assert config.media.bucket == "b"
    both = configured(tmp_path, DATABASE_URL="postgresql://plain", **{P + "DATABASE_URL": "postgresql://own"})
    assert both.database_url is not None
    assert both.database_url.get_secret_value() == "postgresql://own"


def test_a12_a_plain_name_is_the_last_to_be_asked(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/server.toml").write_text('database_url = "postgresql://file"\n[nats]\nurl = "nats://file"\n')
    config = configured(tmp_path, DATABASE_URL="not even a URL", NATS_URL_FILE="/nope")
    assert config.database_url is not None
    assert config.database_url.get_secret_value() == "postgresql://file"
    assert config.nats.url is not None
    assert config.nats.url.get_secret_value() == "nats://file"


def test_a_line_names_where_the_value_was_set(tmp_path: Path) -> None:
    assert refused(tmp_path, DATABASE_URL="mysql://x").endswith("(set by DATABASE_URL)")
    line = refused(tmp_path, {"storage": "memory"}, DATABASE_URL="postgresql://x")
    assert line.endswith("(storage is set by --storage, database_url is set by DATABASE_URL)")
    line = refused(tmp_path, {"embedded": True}, **{P + "DATABASE_URL": "postgresql://x"})
    assert f"database_url is set by {P}DATABASE_URL" in line
    assert "embedded is set by --embedded" in line


def test_an_embedded_server_passes_over_plain_names(tmp_path: Path) -> None:
    environ = {"DATABASE_URL": "postgresql://x", "NATS_URL": "nats://x"}
    config = configured(tmp_path, {"embedded": True}, **environ)
    assert (config.database_url, config.nats.url) == (None, None)
    assert ignored_names(environ) == ["DATABASE_URL", "NATS_URL"]
    assert "nats.url" in refused(tmp_path, {"embedded": True}, **{P + "NATS__URL": "nats://x"})


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"CORS__ALLOWED_ORIGINS": "https://a.example", "CORS__ALLOWED_ORIGINS__0": "https://b.example"},
         f"cors.allowed_origins: is set by {P}CORS__ALLOWED_ORIGINS and by {P}CORS__ALLOWED_ORIGINS__0; remove one"),
        ({"CORS__ALLOWED_ORIGINS__0": "https://a.example", "CORS__ALLOWED_ORIGINS__2": "https://b.example"},
         f"{P}CORS__ALLOWED_ORIGINS__1 is missing before {P}CORS__ALLOWED_ORIGINS__2"),
        ({"MLS__IDENTITIES__1": "a"}, f"{P}MLS__IDENTITIES__0 is missing"),
        ({"MLS__IDENTITIES__x": "a"}, "a list is set by index"),
        ({"MLS__IDENTITIES__00": "a"}, "a list is set by index"),
        ({"FEDERATION__TRUSTED_SERVERS__0": "a", "FEDERATION__TRUSTED_SERVERS__0__KEY_ID": "a"},
         "its entry is also set as a whole"),
        ({"PORT": "1", "port": "2"}, f"port: is set by {P}PORT and by {P}port; remove one of them"),
        ({"NATS__URL": "nats://a", "NATS__URL_FILE": "{here}"}, "nats.url: is set by"),
    ],
)  # fmt: skip
def test_what_is_set_twice_or_with_gaps_is_refused(environ: dict[str, str], expected: str, tmp_path: Path) -> None:
    (tmp_path / "here").write_text("nats://b")
    here = {P + name: value.replace("{here}", str(tmp_path / "here")) for name, value in environ.items()}
    assert expected in refused(tmp_path, **here)


def test_secrets_from_files(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(SEED + "\n")
    (tmp_path / "url").write_text("postgresql://from-file\n")
    config = configured(
        tmp_path, **{P + "SESSION__SIGNING_KEY_FILE": str(tmp_path / "key"), "DATABASE_URL_FILE": str(tmp_path / "url")}
    )
    assert config.key_ring().signing.public.hex() == "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"
    assert config.database_url is not None
    line = refused(tmp_path, **{P + "SESSION__SIGNING_KEY_FILE": str(tmp_path / "missing")})
    assert "SESSION__SIGNING_KEY_FILE" in line
    assert "cannot be read" in line


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"PORT": "0"}, "port cannot be zero"),
        ({"PORT": "banana"}, "invalid bind address: port"),
        ({"HOST": "example.org"}, "invalid bind address: host"),
        ({"BIND_ADDR": "nonsense"}, "expected host:port"),
        ({"LOG_FORMAT": "xml"}, "log_format"),
        ({"MESSAGING__RATE_LIMIT_WINDOW_SECS": "0"},
         "invalid messaging configuration: messaging.rate_limit_window_secs must be greater than zero"),
        ({"SESSION__SIGNING_KEY": "short"}, "invalid session key material"),
        ({"SESSION__FALLBACK_VERIFYING_KEYS": PUBLIC + "=="}, "invalid session key material"),
        ({"FEDERATION__TRUSTED_SERVERS__0__VERIFYING_KEY": PUBLIC},
         "invalid federation configuration: trusted server entries require a server_name"),
        ({"MLS__ENABLED": "true"}, "invalid MLS configuration: mls.identities must include at least one identity"),
        ({"CORS__ALLOWED_ORIGINS": "not an origin"}, "is not an origin"),
        ({"TRUSTED_PROXIES": "10.0.0.0/99"}, "trusted_proxies"),
        ({"MESAGING__REPLAY_WINDOW": "5"}, "did you mean messaging.replay_window?"),
        ({"EMBEDDED": "true", "STORAGE": "memory"}, "embedded"),
        ({"STORAGE": "memory", "DATABASE_URL": "postgresql://x"}, "contradict"),
        ({"DATABASE__REPLICA_URLS": "postgresql://x"}, "requires database_url, which is not set"),
        ({"STORAGE": "sqlite"}, "storage"),
    ],
)  # fmt: skip
def test_bad_values_are_told_in_one_line(environ: dict[str, str], expected: str, tmp_path: Path) -> None:
    assert expected in refused(tmp_path, **{P + name: value for name, value in environ.items()})


def test_a_refused_secret_is_not_repeated(tmp_path: Path) -> None:
    assert "hunter2hunter2" not in refused(tmp_path, **{P + "SESSION__SIGNING_KEY": "hunter2hunter2"})


@pytest.mark.parametrize(
    ("name", "text"),
    [("server.toml", "port = = 1"), ("server.yaml", "a: [1"), ("server.json", "[]"), ("server.ini", "")],
)
def test_unreadable_files(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / name).write_text(text)
    assert name in refused(tmp_path)


def test_unknown_keys_in_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/server.toml").write_text("[messaging]\nreplay_windw = 1\n")
    assert "messaging.replay_windw" in refused(tmp_path)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("PORT", "PORT"), ("NATS_URL", "NATS__URL"), ("messaging_replay_window", "MESSAGING__REPLAY_WINDOW")],
)
def test_names_with_single_underscores_are_refused(tmp_path: Path, name: str, meant: str) -> None:
    assert f"did you mean {P}{meant}?" in refused(tmp_path, **{P.removesuffix("_") + name: "9000"})


def test_names_that_kubernetes_sets_for_a_service_are_passed_over(tmp_path: Path) -> None:
    service = {"PORT": "tcp://10.0.0.1:8080", "SERVICE_HOST": "10.0.0.1", "PORT_8080_TCP_ADDR": "10.0.0.1"}
    names = {P.removesuffix("_") + name: text for name, text in service.items()}
    assert configured(tmp_path, **names).port == 8080


def test_a9_a_start_needs_a_named_store(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="storage: is not set"):
        require_servable(configured(tmp_path))
    with pytest.raises(ConfigError, match="storage: postgres requires a database"):
        require_servable(configured(tmp_path, **{P + "STORAGE": "postgres"}))
    with pytest.raises(ConfigError, match=r"session\.signing_key: is not set"):
        require_servable(configured(tmp_path, **{P + "DATABASE_URL": "postgresql://x"}))
    require_servable(configured(tmp_path, {"embedded": True}))
    require_servable(configured(tmp_path, {"storage": "memory"}, **{P + "SESSION__SIGNING_KEY": SEED}))


@pytest.mark.parametrize(
    ("own", "metrics", "fits"),
    [
        ({"HOST": "127.0.0.1", "PORT": "9211"}, "127.0.0.1:9211", False),
        ({"HOST": "0.0.0.0", "PORT": "9211"}, "127.0.0.1:9211", False),
        ({"BIND_ADDR": "127.0.0.1:9211"}, "[::]:9211", False),
        ({"HOST": "127.0.0.1", "PORT": "9211"}, "127.0.0.2:9211", True),
        ({"HOST": "127.0.0.1", "PORT": "9211"}, "127.0.0.1:9212", True),
    ],
)
def test_the_metrics_do_not_listen_where_the_server_does(
    tmp_path: Path, own: dict[str, str], metrics: str, fits: bool
) -> None:
    names = {P + key: value for key, value in own.items()} | {
        P + "METRICS__BIND_ADDR": metrics,
        P + "SESSION__SIGNING_KEY": SEED,
    }
    config = configured(tmp_path, {"storage": "memory"}, **names)
    if fits:
        require_servable(config)
    else:
        with pytest.raises(ConfigError, match=r"metrics\.bind_addr: the server itself listens on port 9211"):
            require_servable(config)


def test_dump_hides_secrets(tmp_path: Path) -> None:
    config = configured(
        tmp_path,
        **{P + "DATABASE_URL": "postgresql://u:secret@h/d"},
        **{P + f"DATABASE__REPLICA_URLS__{number}": f"postgresql://u:secret@h{number}/d" for number in range(2)},
        **{P + "SESSION__SIGNING_KEY": SEED, "MEDIA_SECRET_KEY": "s3"},
    )
    shown = json.dumps(config.shown())
    assert "secret@" not in shown
    assert SEED not in shown
    assert "s3" not in shown
    assert config.shown()["database_url"] == "***"
    assert config.shown()["database.replica_urls"] == ["***", "***"]
    assert set(config.shown()) == {key.name for key in keys_of(ServerConfig)}


def test_the_names_of_overrides_are_known(tmp_path: Path) -> None:
    assert overridden_names({P + "PORT": "1", "DATABASE_URL": "x", "HOME": "/"}) == ["DATABASE_URL", P + "PORT"]


def test_the_flag_of_a_list_is_named_as_it_is_typed(tmp_path: Path) -> None:
    line = refused(tmp_path, {"session.fallback_verifying_keys": ["short"]})
    assert line.endswith("(set by --session-fallback-verifying-key)")
