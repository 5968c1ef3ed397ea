"""Parameters of a database URL: what the driver takes, what changes nothing, what is refused, and which files must be there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import asyncpg
import pytest

from openguild_runtime.config.database_parameters import driver_query, settings_of
from openguild_runtime.config.layers import ConfigError
from openguild_runtime.config.server_config import load
from tests.support.server import ServerProcess

NAME = "OPENGUILD_SERVER__DATABASE_URL"
URL = "postgresql://u:hunter2@h/d"


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("", ""),
        ("connect_timeout=3", ""),
        ("sslmode=require&channel_binding=prefer", "sslmode=require"),
        ("keepalives=1&keepalives_idle=5&sslmode=require&tcp_user_timeout=9", "sslmode=require"),
        ("gssencmode=disable&client_encoding=auto", ""),
        ("target_session_attrs=read-write", "target_session_attrs=read-write"),
        ("application_name=chat&options=-csearch_path%3Dchat", "application_name=chat&options=-csearch_path%3Dchat"),
        ("search_path=chat&my.setting=1&tcp_keepalives_idle=5", "search_path=chat&my.setting=1&tcp_keepalives_idle=5"),
        ("sslmode=require&&", "sslmode=require"),
        ("sslmode=require&sslnegotiation=direct", "sslmode=require&sslnegotiation=direct"),
    ],
)
def test_parameters_without_effect_are_left_out(given: str, taken: str, tmp_path: Path) -> None:
    config = load({}, {NAME: f"{URL}?{given}"}, tmp_path)
    assert config.database_url is not None
    assert config.database_url.get_secret_value() == URL + (f"?{taken}" if taken else "")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("channel_binding=require", "the parameter channel_binding is not supported; remove it, and use sslmode="),
        ("gssencmode=require", "the parameter gssencmode is not supported; remove it, and use sslmode=require"),
        ("require_auth=scram-sha-256", "the parameter require_auth is not supported"),
        ("hostaddr=10.0.0.1", "the parameter hostaddr is not supported; write the address as the"),
        ("ssl=true", "the parameter ssl is not supported; write sslmode=require"),
        ("conect_timeout=3", "has an unknown parameter after its ?; did you mean connect_timeout?"),
        ("SSLMode=require", "did you mean sslmode?"),
        ("sslrootcrt=/hunter2", "did you mean sslrootcert?"),
        ("sslmode=hunter2", "unknown value of the parameter sslmode; expected one of disable, allow"),
        (
            "target_session_attrs=hunter2",
            "unknown value of the parameter target_session_attrs; expected one of any, read-write",
        ),
        (
            "ssl_min_protocol_version=2",
            "unknown value of the parameter ssl_min_protocol_version; expected one of TLSv1",
        ),
        ("sslrootcert=system", "sslrootcert=system is not supported; name the file"),
        ("sslnegotiation=direct", "sslnegotiation=direct requires TLS: add sslmode=require"),
        ("port=hunter2", "the port after the ? is not a number"),
        ("hunter2", "has a parameter after its ? that is not name=value (in a password, write ? as %3F)"),
        ("hunter2@host=1", "has a parameter after its ? that is not name=value"),
    ],
)
def test_what_cannot_be_kept_to_is_refused_by_its_name(given: str, told: str, tmp_path: Path) -> None:
    for name in (NAME, "OPENGUILD_SERVER__DATABASE__REPLICA_URLS__0"):
        with pytest.raises(ConfigError) as refused:
            load({}, {NAME: URL} | {name: f"{URL}?{given}"}, tmp_path)
        line = str(refused.value)
        assert told in line
        assert f"set by {name.replace('URLS__0', 'URLS__...')}" in line
        assert "hunter2" not in line


@pytest.mark.anyio
async def test_no_setting_of_postgresql_is_taken_for_a_typing_error(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch("SELECT name FROM pg_settings WHERE context IN ('user', 'superuser')")
    await connection.close()
    names = [row["name"] for row in rows]
    assert len(names) > 100
    for name in names:
        driver_query(f"{name}=1" if name != "ssl_min_protocol_version" else "")


def test_settings_are_told_from_parameters_of_the_driver() -> None:
    assert settings_of(f"{URL}?sslmode=require&search_path=x&options=y&dbname=d&empty=") == ["search_path", "options"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = tmp_path_factory.mktemp("certificate")
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=db", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


def checked(directory: Path, query: str, key: str = "DATABASE_URL") -> tuple[int, str]:
    settings = {"DATABASE_URL": URL} | {key: f"{URL}?{query}"}
    done = ServerProcess(directory, **settings).run_command("config", "check", HOME=str(directory), PGSSLROOTCERT="")
    assert "hunter2" not in done.stderr
    return done.returncode, done.stderr


def test_the_files_of_tls_must_be_there(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    authorities, key = certificate
    missing = "cannot be read (no such file or directory): check the path and its permissions, or remove the key\n"
    start = "openguild-server: database_url: "
    for query, told in {
        "sslmode=verify-full&sslrootcert=/nope.pem": f"{start}sslrootcert: the file /nope.pem {missing}",
        "sslcert=/nope.crt": f"{start}sslcert: the file /nope.crt {missing}",
        f"sslcert={authorities}&sslkey=/nope.key": f"{start}sslkey: the file /nope.key {missing}",
        "sslmode=require&sslcrl=/nope.crl": f"{start}sslcrl: the file /nope.crl {missing}",
    }.items():
        assert checked(tmp_path, query) == (1, told)
    status, told = checked(tmp_path, "sslrootcert=/nope.pem&sslmode=require", "DATABASE__REPLICA_URLS__0")
    assert (status, told) == (
        1, f"openguild-server: database.replica_urls: sslrootcert: the file /nope.pem {missing}"
    )  # fmt: skip
    status, told = checked(tmp_path, f"sslmode=verify-full&sslrootcert={key}")
    assert (status, "contains no certificate: use a PEM file with CA certificates" in told) == (1, True), told
    status, told = checked(tmp_path, f"sslcert={key}&sslkey={authorities}")
    assert (status, "sslcert and sslkey are not a certificate and its key" in told) == (1, True), told
    for mode in ("verify-ca", "verify-full"):
        status, told = checked(tmp_path, f"sslmode={mode}")
        assert (status, f"sslmode={mode} requires the CA certificates" in told) == (1, True), told
    for good in (
        f"sslmode=verify-full&sslrootcert={authorities}&sslcert={authorities}&sslkey={key}",
        "sslmode=disable&sslrootcert=/nope.pem",
    ):
        assert checked(tmp_path, good) == (0, "")
