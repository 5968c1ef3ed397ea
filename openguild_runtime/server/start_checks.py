"""Checks of the configuration before a start, shared by `config check` and the server (PROTOCOL 4.4.1, 11.4.4).

Everything raises ConfigError: for each fault the key, the problem and the fix.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

from openguild_runtime.config.database_parameters import VERIFYING, files_of, parameters_of
from openguild_runtime.config.layers import ConfigError, Problems
from openguild_runtime.config.nats_servers import read_credentials
from openguild_runtime.config.server_config import ServerConfig
from openguild_runtime.config.values import split_address
from openguild_runtime.server.descriptors import require_descriptors

ANY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound


def require_servable(config: ServerConfig) -> None:
    """Require a storage, keys, open files, and the configured files and packages. Reads the file system, changes nothing."""
    problems = Problems()
    checks = (
        _require_storage,
        require_descriptors,
        _require_keys,
        _require_files,
        _require_tracing,
        _require_own_address,
    )
    for check in checks:
        with problems.noting():
            check(config)
    problems.raise_all()


def _require_storage(config: ServerConfig) -> None:
    if not config.embedded and config.storage != "memory" and config.database_url is None:
        if config.storage == "postgres":
            raise ConfigError(
                "storage: postgres requires a database: set database_url, or pass --embedded for a private one"
            )
        raise ConfigError(
            "storage: is not set: pass --embedded for a private database, set database_url, "
            "or pass --storage memory (all data is lost at exit)"
        )


def _require_keys(config: ServerConfig) -> None:
    if config.embedded:
        _require_usable("data_dir", config.data_dir)
    else:
        config.key_ring()


def _require_files(config: ServerConfig) -> None:
    problems = Problems()
    for key, path, check in (
        ("nats.ca_file", config.nats.ca_file, _require_certificates),
        ("nats.credentials_file", config.nats.credentials_file, _require_credentials),
        ("federation.ca_file", config.federation.ca_file, _require_certificates),
    ):
        with problems.noting():
            _require_readable(key, path)
            check(key, path)
    if config.nats.certificate is not None:
        with problems.noting():
            _require_readable("nats.cert_file", config.nats.cert_file)
            _require_readable("nats.key_file", config.nats.key_file)
            _require_pair(
                "nats.cert_file and nats.key_file: are not a certificate and its key", config.nats.certificate
            )
    for key, url in _database_urls(config):
        with problems.noting():
            _require_tls_files(key, url)
    if config.admin_socket is not None:
        with problems.noting():
            _require_directory("admin_socket", config.admin_socket)
    problems.raise_all()


def _database_urls(config: ServerConfig) -> Iterator[tuple[str, str]]:
    if config.database_url is not None:
        yield "database_url", config.database_url.get_secret_value()
    for url in config.database.replica_urls:
        yield "database.replica_urls", url.get_secret_value()


def _require_tls_files(key: str, url: str) -> None:
    """Require the TLS files of a database URL, found as the driver finds them."""
    parameters = parameters_of(url)
    for name, path in files_of(url):
        _require_readable(f"{key}: {name}", path)
        if name == "sslrootcert":
            _require_certificates(f"{key}: {name}", path)
    mode = parameters.get("sslmode")
    if mode in VERIFYING and "sslrootcert" not in parameters and not _has_authorities():
        raise ConfigError(
            f"{key}: sslmode={mode} requires the CA certificates of the server: set sslrootcert to a PEM file "
            "(the system's is often /etc/ssl/certs/ca-certificates.crt)"
        )
    if parameters.keys() >= {"sslcert", "sslkey"} and mode != "disable":
        _require_pair(
            f"{key}: sslcert and sslkey are not a certificate and its key, or sslpassword does not decrypt the key",
            (parameters["sslcert"], parameters["sslkey"]),
            parameters.get("sslpassword", ""),
        )


def _require_pair(problem: str, files: tuple[str, str], password: str = "") -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(*files, lambda: password)
    except OSError:
        raise ConfigError(f"{problem}: use the PEM files of a certificate and of its key, or remove both") from None


def _has_authorities() -> bool:
    """Return whether the driver finds certificate authorities without `sslrootcert`."""
    if os.environ.get("PGSSLROOTCERT"):
        return True
    try:
        return os.access(Path.home() / ".postgresql" / "root.crt", os.R_OK)
    except RuntimeError:  # no home
        return False


def _require_tracing(config: ServerConfig) -> None:
    if config.tracing.otlp_endpoint is not None and not _has_opentelemetry():
        raise ConfigError(
            "tracing.otlp_endpoint: OpenTelemetry is not installed: pip install 'openguild[otel]', or remove the key"
        )


def _require_own_address(config: ServerConfig) -> None:
    """Require different ports for metrics and server: several workers can bind both to one port, which mixes their requests."""
    if not config.metrics.enabled or config.metrics.bind_addr is None:
        return
    (host, port), (metrics_host, metrics_port) = config.listen, split_address(config.metrics.bind_addr)
    if port == metrics_port and (host == metrics_host or not {host, metrics_host}.isdisjoint(ANY_ADDRESS)):
        raise ConfigError(
            f"metrics.bind_addr: the server itself listens on port {port}: choose another port, or remove the key: "
            "the server answers GET /metrics too"
        )


def require_addresses(config: ServerConfig) -> None:
    """Require that the addresses to listen on can be bound, before anything else is started. The listeners bind them later."""
    _require_free("bind_addr" if config.bind_addr is not None else "host and port", *config.listen)
    if config.metrics.enabled and config.metrics.bind_addr is not None:
        _require_free("metrics.bind_addr", *split_address(config.metrics.bind_addr))


def _require_readable(key: str, path: Path | None) -> None:
    if path is None:
        return
    try:
        with path.open("rb"):
            return
    except OSError as failure:
        raise ConfigError(
            f"{key}: the file {path} cannot be read ({_reason(failure)}): check the path and its permissions, or remove the key"
        ) from None


def _require_certificates(key: str, path: Path | None) -> None:
    if path is None:
        return
    try:
        ssl.create_default_context(cafile=path)
    except OSError:
        raise ConfigError(
            f"{key}: the file {path} contains no certificate: use a PEM file with CA certificates, or remove the key"
        ) from None


def _require_credentials(key: str, path: Path | None) -> None:
    if path is None:
        return
    try:
        read_credentials(path)
    except (OSError, ValueError) as failure:
        reason = "is not text" if isinstance(failure, UnicodeDecodeError) else str(failure)
        raise ConfigError(f"{key}: the file {path} {reason}: use a NATS .creds file, or remove the key") from None


def _require_directory(key: str, path: Path) -> None:
    """Require a writable directory for a socket at `path`."""
    directory = path.absolute().parent
    try:
        if not directory.is_dir():
            raise ConfigError(f"{key}: the directory {directory} does not exist: create it, or choose another path")
        if not os.access(directory, os.W_OK | os.X_OK):
            raise ConfigError(
                f"{key}: the directory {directory} is not writable: change its permissions, or choose another path"
            )
        if path.exists() and not path.is_socket():
            raise ConfigError(f"{key}: {path} exists and is not a socket: remove it, or choose another path")
    except OSError as failure:
        raise ConfigError(f"{key}: {path} cannot be used ({_reason(failure)}): choose another path") from None


def _require_usable(key: str, path: Path) -> None:
    """Require a directory that can be written or created."""
    reason = ""
    try:
        standing = _standing(path.absolute())
        if not standing.is_dir():
            reason = f"{standing} is not a directory"
        elif not os.access(standing, os.W_OK | os.X_OK):
            reason = f"{standing} is not writable"
    except OSError as failure:
        reason = _reason(failure)
    if reason:
        raise ConfigError(f"{key}: {path.absolute()} cannot be used ({reason}): fix that, or choose another directory")


def _standing(path: Path) -> Path:
    """Return the path, or its nearest parent that exists. Raises OSError for a path that cannot be looked up."""
    while True:
        try:
            path.stat()  # from Python 3.14 on, `exists` hides the error
        except (FileNotFoundError, NotADirectoryError):
            path = path.parent
        else:
            return path


def _has_opentelemetry() -> bool:
    try:
        found = (
            importlib.util.find_spec(name)
            for name in ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter")
        )
        return all(spec is not None for spec in found)
    except ModuleNotFoundError:
        return False


def _require_free(key: str, host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    shown = f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            probe.bind((host, port))
    except OSError as failure:
        mend = {
            errno.EADDRINUSE: "choose another, or stop the process that listens there",
            errno.EADDRNOTAVAIL: "choose an address of this machine, or 0.0.0.0 for all of them",
            errno.EACCES: "choose a port from 1024 on, or allow this user the lower ones",
        }.get(failure.errno or 0, "choose another")
        raise ConfigError(f"{key}: cannot listen on {shown} ({_reason(failure)}): {mend}") from None


def _reason(failure: OSError) -> str:
    return (failure.strerror or type(failure).__name__).lower()
