"""Starts the workers, restarts who dies, hands signals on, and ends when all have ended.

Workers are processes of sessions of their own: a Ctrl-C reaches the supervisor alone, which sends SIGTERM on.
"""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import structlog
from anyio.abc import ByteSendStream, Process
from pydantic import BaseModel, SecretStr

from openguild_runtime.config import ServerConfig, split_address
from openguild_runtime.config_layers import ConfigError
from openguild_runtime.failures import CommandFailed
from openguild_runtime.private import private_servers
from openguild_runtime.reload import live_part

MAX_BACKOFF_SECS = 5.0
STEADY_SECS = 10.0  # who lived as long as this is restarted at once

log = structlog.get_logger("openguild.workers")


async def supervise(config: ServerConfig, reread: Callable[[], ServerConfig]) -> int:
    """Serve with `config.workers` processes until SIGTERM or SIGINT. The exit status: 0 when every worker drained."""
    for host, port in _addresses(config):
        _require_free(host, port)
    async with private_servers(config) as completed:
        with tempfile.TemporaryDirectory(prefix="openguild-") as directory:
            return await Supervisor(completed, Path(directory), reread).run()


class Supervisor:
    def __init__(self, config: ServerConfig, directory: Path, reread: Callable[[], ServerConfig]) -> None:
        self._config = config
        self._reread = reread
        self._directory = directory
        self._processes: dict[int, Process] = {}
        self._stopping = anyio.Event()
        self._status = 0

    async def run(self) -> int:
        async with anyio.create_task_group() as tasks:
            for number in range(self._config.workers):
                tasks.start_soon(self._keep, number)
            tasks.start_soon(self._reload_at_hangup)
            with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                tasks.start_soon(self._cancel_when_ended, tasks.cancel_scope)
                async for received in signals:
                    log.info("shutdown signal received", signal=received.name)
                    self._stopping.set()
                    self._hand_on(signal.SIGTERM)
        log.info("stopped")
        return self._status

    def _hand_on(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            if process.returncode is None:
                process.send_signal(number)

    async def _cancel_when_ended(self, scope: anyio.CancelScope) -> None:
        """The signal receiver never ends by itself."""
        await self._stopping.wait()
        for process in list(self._processes.values()):
            self._status = max(self._status, abs(await process.wait()))
        scope.cancel()

    async def _keep(self, number: int) -> None:
        """One seat: there is always a worker in it, until the end."""
        failures = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            process = await self._start(number)
            status = await process.wait()
            if self._stopping.is_set():
                return
            if status == 1 and failures == 0 and time.monotonic() - started < STEADY_SECS:
                log.error("a worker cannot start: the others end too", worker=number)  # it has said why
                self._status = 1
                self._stopping.set()
                self._hand_on(signal.SIGTERM)
                return
            failures = 0 if time.monotonic() - started > STEADY_SECS else failures + 1
            delay = 0.0 if failures == 0 else random.uniform(0.1, min(MAX_BACKOFF_SECS, 0.2 * 2**failures))  # noqa: S311 - jitter
            log.error("a worker died and is started again", worker=number, status=status, delay_secs=round(delay, 2))
            with anyio.move_on_after(delay):
                await self._stopping.wait()

    async def _start(self, number: int) -> Process:
        process = await anyio.open_process(
            [sys.executable, "-m", "openguild_runtime.workers.child"],
            stdin=subprocess.PIPE,
            stdout=None,
            stderr=None,
            start_new_session=True,
        )
        self._processes[number] = process
        await self._order(number, process)
        return process

    async def _order(self, number: int, process: Process) -> None:
        orders = {
            "config": plain(
                self._config.model_copy(update={"embedded": False, "admin_socket": self._config.admin_path})
            ),
            "number": number,
            "count": self._config.workers,
            "directory": str(self._directory),
        }
        stdin: ByteSendStream | None = process.stdin
        if stdin is not None:
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # it ended at once: `_keep` sees that
                await stdin.send(json.dumps(orders).encode() + b"\n")

    async def _reload_at_hangup(self) -> None:
        """SIGHUP: what may change while serving goes to every worker."""
        with anyio.open_signal_receiver(signal.SIGHUP) as hangups:
            async for _ in hangups:
                try:
                    self._config = live_part(self._config, self._reread())
                except ConfigError as problem:
                    log.error("the configuration was not applied", problem=str(problem))  # noqa: TRY400 - one line
                    continue
                for number, process in self._processes.items():
                    await self._order(number, process)


def plain(section: BaseModel) -> dict[str, Any]:
    """The configuration with its secrets, for the pipe to a worker and for nothing else."""
    return {name: _plain(getattr(section, name)) for name in type(section).model_fields}


def _plain(value: Any) -> Any:
    match value:
        case BaseModel():
            return plain(value)
        case SecretStr():
            return value.get_secret_value()
        case tuple():
            return [_plain(item) for item in value]
        case Path():
            return str(value)
        case _:
            return value


def _addresses(config: ServerConfig) -> list[tuple[str, int]]:
    addresses = [config.listen]
    if config.metrics.enabled and config.metrics.bind_addr is not None:
        addresses.append(split_address(config.metrics.bind_addr))
    return addresses


def _require_free(host: str, port: int) -> None:
    """Workers share their port with whoever asks for sharing: a stranger on it must be noticed before. Raises OSError."""
    if port == 0:
        raise CommandFailed("port: 0 cannot be shared by workers: name one")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        probe.listen(1)
