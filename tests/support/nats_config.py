"""A real nats-server with a configuration of the test, which can be changed while it runs."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openguild_runtime.embedded.nats import find_program
from tests.support.waiting import free_port, wait_until


class ConfiguredNats:
    """Runs from `start` to `kill`. `url` has no user and password."""

    def __init__(self, directory: Path, settings: str = "") -> None:
        self._directory = directory
        self._settings = settings
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._write()
        self._log().unlink(missing_ok=True)
        self.process = subprocess.Popen([find_program(), "-c", self._file(), "-l", self._log()])
        self._logged("Server is ready")

    def reload(self, settings: str) -> None:
        """Reload the configuration as an operator does: write the file, then send SIGHUP."""
        self._settings = settings
        self._write()
        reloads = self._log().read_text().count("Reloaded server configuration")
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self._log().read_text().count("Reloaded server configuration") > reloads)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def url_of(self, userinfo: str) -> str:
        return f"nats://{userinfo}@127.0.0.1:{self.port}"

    def _write(self) -> None:
        self._file().write_text(f'listen: "127.0.0.1:{self.port}"\n{self._settings}\n')

    def _file(self) -> Path:
        return self._directory / f"nats-{self.port}.conf"

    def _log(self) -> Path:
        return self._directory / f"nats-{self.port}.log"

    def _logged(self, text: str) -> None:
        wait_until(
            lambda: self.process.poll() is not None or (self._log().exists() and text in self._log().read_text())
        )
        assert self.process.poll() is None, self._log().read_text()


@contextmanager
def configured_nats(directory: Path, settings: str = "") -> Iterator[ConfiguredNats]:
    server = ConfiguredNats(directory, settings)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def permissions(*, publish: str = "", subscribe: str = "", password: str = "pw") -> str:
    """Return settings with one user, `og`. `publish` and `subscribe`: the denied subjects, quoted and separated by commas."""
    return (
        f'authorization {{ users: [{{ user: og, password: "{password}", permissions: {{ '
        f"publish: {{ deny: [{publish}] }}, subscribe: {{ deny: [{subscribe}] }} }} }}] }}"
    )
