"""A nats-server with TLS and operator credentials, as a production NATS has them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nkeys
import trustme

from openguild_runtime.embedded.nats import find_program
from tests.support.waiting import free_port, wait_until


class SecuredNats:
    """Runs until `stop`."""

    def __init__(self, directory: Path, port: int) -> None:
        self.url = f"tls://127.0.0.1:{port}"
        self.credentials_file = directory / "server.creds"
        self.ca_file = directory / "ca.pem"
        self._directory = directory

    def start(self) -> None:
        log = self._directory / "nats.log"
        log.unlink(missing_ok=True)
        self._process = subprocess.Popen([find_program(), "-c", self._directory / "nats.conf", "-l", log])
        wait_until(lambda: self._process.poll() is not None or (log.exists() and "Server is ready" in log.read_text()))
        assert self._process.poll() is None, log.read_text()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def _key(prefix: int) -> nkeys.KeyPair:
    return nkeys.from_seed(nkeys.encode_seed(os.urandom(32), prefix))


def _text(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def _jwt(issuer: nkeys.KeyPair, subject: nkeys.KeyPair, name: str, kind: str, **limits: object) -> str:
    """Return a NATS JWT of version 2: claims signed by the issuer's nkey."""
    claims: dict[str, object] = {
        "iat": 1_700_000_000,
        "iss": issuer.public_key.decode(),
        "sub": subject.public_key.decode(),
        "name": name,
        "nats": {"type": kind, "version": 2, **limits},
    }
    claims["jti"] = base64.b32encode(hashlib.sha256(json.dumps(claims).encode()).digest()).rstrip(b"=").decode()
    header = json.dumps({"typ": "JWT", "alg": "ed25519-nkey"})
    signed = f"{_text(header.encode())}.{_text(json.dumps(claims).encode())}"
    return f"{signed}.{_text(issuer.sign(signed.encode()))}"


@contextmanager
def secured_nats(directory: Path) -> Iterator[SecuredNats]:
    """Run a server with a certificate of its own authority, which admits one user of one account."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(directory / "ca.pem")
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(directory / "cert.pem")
    operator, account, user = (
        _key(prefix) for prefix in (nkeys.PREFIX_BYTE_OPERATOR, nkeys.PREFIX_BYTE_ACCOUNT, nkeys.PREFIX_BYTE_USER)
    )
    unlimited = {"subs": -1, "data": -1, "payload": -1}
    account_limits = {**unlimited, "imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1}
    account_jwt = _jwt(operator, account, "chat", "account", limits=account_limits)
    port = free_port()
    (directory / "nats.conf").write_text(
        f"""
        listen: "127.0.0.1:{port}"
        operator: "{_jwt(operator, operator, "ops", "operator")}"
        resolver: MEMORY
        resolver_preload: {{ {account.public_key.decode()}: "{account_jwt}" }}
        tls {{ cert_file: "{directory}/cert.pem", key_file: "{directory}/key.pem" }}
        """
    )
    server = SecuredNats(directory, port)
    server.credentials_file.write_text(
        f"-----BEGIN NATS USER JWT-----\n{_jwt(account, user, 'server', 'user', **unlimited)}\n"
        "------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def mutual_nats(directory: Path, authority: trustme.CA) -> Iterator[str]:
    """Run a server that demands a client certificate of `authority` and has one of its own; yield its URL."""
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(directory / "ca.pem")
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(directory / "cert.pem")
    port = free_port()
    (directory / "nats.conf").write_text(
        f"""
        listen: "127.0.0.1:{port}"
        tls {{
            cert_file: "{directory}/cert.pem", key_file: "{directory}/key.pem",
            ca_file: "{directory}/ca.pem", verify: true
        }}
        """
    )
    server = SecuredNats(directory, port)
    server.start()
    try:
        yield server.url
    finally:
        server.kill()
