"""The supervisor: starts the workers, restarts those that die or hang, forwards signals, and exits after all have exited.

If a worker fails at its first start, all end, because all have the same configuration. Once a slot has served, its process
is restarted with backoff as long as another worker serves. If none serves, MAX_FAILURES in a row end the server. Each worker
runs in its own session, so that Ctrl-C reaches only the supervisor, which sends SIGTERM to the workers. Workers communicate
with the supervisor over inherited sockets, without files (siblings.py).
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import anyio
import structlog
from anyio.abc import ByteSendStream, Process
from pydantic import SecretStr

from openguild_runtime.admin.reload import live_part
from openguild_runtime.config.declared import is_section, values_of
from openguild_runtime.config.layers import ConfigError
from openguild_runtime.config.server_config import ServerConfig, split_address
from openguild_runtime.embedded.private import private_servers
from openguild_runtime.process.shutdown import WORKERS_SECS, Shutdown, handle_signals
from openguild_runtime.server.failures import CommandFailed
from openguild_runtime.server.siblings import HEARTBEAT_SECS, Heartbeat, Message, ReloadFailed, SiblingLink
from openguild_runtime.system.background import log_exceptions
from openguild_runtime.system.unix_socket import remove_stale_sockets
from openguild_runtime.workers.metrics_relay import MetricsRelay

PROGRAM = (sys.executable, "-m", "openguild_runtime.workers.child")
MAX_BACKOFF_SECS = 15.0
MAX_FAILURES = 8  # about 20 seconds
STABLE_SECS = 10.0  # a process that lived this long is restarted at once
MAX_MISSED_HEARTBEATS = 5
START_SECS = 60.0  # until the first heartbeat
SEND_CONFIGURATION_SECS = 1.0  # to write a configuration to the pipe

log = structlog.get_logger("openguild.workers")


async def supervise(config: ServerConfig, reread: Callable[[], ServerConfig]) -> int:
    """Serve with `config.workers` processes until SIGTERM or SIGINT. Return the exit status: 0 if every worker drained."""
    with ExitStack() as reserved:
        for host, port in _addresses(config):
            reserved.enter_context(reserve(host, port))
        if config.admin_path is not None:
            remove_stale_sockets(config.admin_path)
        shutdown, status = Shutdown(config.drain.delay_secs + config.drain.window_secs), 0
        async with handle_signals(shutdown) as hangups, private_servers(config, shutdown) as completed:
            status = await Supervisor(completed, reread, shutdown).run(hangups)
    log.info("stopped")
    shutdown.finish(status)
    return status


class Worker:
    """A slot and its current process."""

    def __init__(self, number: int) -> None:
        self.number = number  # from 0
        self.process: Process | None = None
        self.served = False  # a process of this slot has accepted connections
        self.listening = False  # the current process accepts connections
        self.failures = 0  # in a row
        self.changes: dict[str, Any] = {}  # settings of `admin set`, for the next process
        self._heartbeat_seen = False  # since the last check

    def signal(self, number: signal.Signals) -> None:
        """Send the signal `number` to the process if it runs.

        Not with the process's `send_signal`, which polls it first: asyncio would then miss the exit status and report 255.
        """
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):  # it has just exited
                os.kill(self.process.pid, number)

    async def send_configuration(self, config: ServerConfig, **extra: int) -> None:
        """Send the configuration, at the start or after a reload. `extra` are values for the start only."""
        own = config.model_copy(update={"embedded": False, "admin_socket": config.admin_path})
        start_parameters = {
            "config": as_plain_values(own),
            "changes": self.changes,
            "number": self.number,
            "count": config.workers,
            "supervisor": os.getpid(),
            **extra,
        }
        stdin: ByteSendStream | None = None if self.process is None else self.process.stdin
        if stdin is not None:
            # the process exited, which `_keep_running` notices, or hangs, which `wait_until_hung` notices
            with (
                suppress(anyio.BrokenResourceError, anyio.ClosedResourceError),
                anyio.move_on_after(SEND_CONFIGURATION_SECS),
            ):
                await stdin.send(json.dumps(start_parameters).encode() + b"\n")

    async def wait_until_hung(self, sleep: Callable[[float], Awaitable[None]] = anyio.sleep) -> None:
        """Wait until the process has sent no heartbeat for too long.

        Counts checks instead of time, so that a suspended machine or supervisor counts as one check.
        """
        checks, missed, answered = 0, 0, False
        while missed < MAX_MISSED_HEARTBEATS and (answered or checks * HEARTBEAT_SECS < START_SECS):
            await sleep(HEARTBEAT_SECS)
            checks += 1
            answered |= self._heartbeat_seen
            missed = 0 if self._heartbeat_seen or not answered else missed + 1
            self._heartbeat_seen = False

    def record_heartbeat(self, heartbeat: Heartbeat) -> None:
        """Record the state that the process reports."""
        self._heartbeat_seen = True
        if heartbeat.listening and not self.listening:
            self.served = True
            log.info("a worker serves", worker=self.number, process=self.process and self.process.pid)
        self.listening = heartbeat.listening
        if heartbeat.changes != self.changes:
            self.changes = heartbeat.changes
            log.info("a worker's settings are kept for its slot", worker=self.number, settings=self.changes)

    def reset(self) -> None:
        """Prepare for the next process of the slot."""
        self.process = None
        self.listening = self._heartbeat_seen = False


class Supervisor:
    """Keeps a process running in each slot. `reread` loads the configuration again, `program` is the command of a worker.

    `max_backoff_secs` bounds the delay before a restart. After `max_failures` in a row, while no other worker serves, the server
    ends.
    """

    def __init__(
        self,
        config: ServerConfig,
        reread: Callable[[], ServerConfig],
        shutdown: Shutdown,
        *,
        program: Sequence[str] = PROGRAM,
        max_backoff_secs: float = MAX_BACKOFF_SECS,
        max_failures: int = MAX_FAILURES,
    ) -> None:
        self._config = config
        self._program = program
        self._max_backoff_secs = max_backoff_secs
        self._max_failures = max_failures
        self._shutdown = shutdown
        self._reread = reread
        self._reloaded = True
        self._links: dict[int, SiblingLink] = {}  # of the running workers, by number
        self._workers = [Worker(number) for number in range(config.workers)]
        self._stopping = anyio.Event()
        self._status = 0

    async def run(self, hangups: AsyncIterator[signal.Signals]) -> int:
        """Serve until SIGTERM or SIGINT and return the exit status. Reload the configuration at each of `hangups`."""
        async with anyio.create_task_group() as helpers:
            helpers.start_soon(self._forward_shutdown)
            helpers.start_soon(self._reload_at_hangup, hangups)
            relay = MetricsRelay(helpers, self._links)
            async with anyio.create_task_group() as slots:
                for worker in self._workers:
                    slots.start_soon(self._keep_running, worker, relay)
            helpers.cancel_scope.cancel()
        return self._status

    def signal_worker(self, slot: int, number: signal.Signals) -> None:
        """Send a signal to the process of a slot, if it runs. If it ends, it is restarted."""
        self._workers[slot].signal(number)

    async def _forward_shutdown(self) -> None:
        """Make the workers drain at the first signal, and exit at once at the second."""
        await self._shutdown.wait_requested()
        self._stop()
        await self._shutdown.forced.wait()
        self._stop()

    def _stop(self) -> None:
        self._shutdown.begin()
        self._stopping.set()
        for worker in self._workers:
            worker.signal(signal.SIGTERM)

    async def _keep_running(self, worker: Worker, relay: MetricsRelay) -> None:
        """Keep a process running in the slot until the shutdown."""
        while not self._stopping.is_set():
            started = time.monotonic()
            status = await self._run(worker, relay)
            lived = time.monotonic() - started
            if self._stopping.is_set():
                # a negative status means killed by a signal, which does not count as a failure during a shutdown
                self._status = max(self._status, status)
                return
            if status == 1 and not worker.served:
                # the worker has logged the reason
                log.error("a worker cannot start: stopping all workers", worker=worker.number)
                self._stop_with_failure()
                return
            worker.failures = 0 if lived > STABLE_SECS else worker.failures + 1
            if worker.failures >= self._max_failures and not any(other.listening for other in self._workers):
                log.error(
                    "all workers keep exiting: stopping the server; see the workers' last log lines",
                    worker=worker.number, status=status, failures=worker.failures,
                )  # fmt: skip
                self._stop_with_failure()
                return
            most = min(self._max_backoff_secs, 0.2 * 2 ** min(worker.failures, MAX_FAILURES))
            delay = 0.0 if worker.failures == 0 else random.uniform(most / 2, most)  # noqa: S311 - jitter
            fields = {"worker": worker.number, "status": status, "delay_secs": round(delay, 2)}
            if status == 0:  # after a SIGTERM that the supervisor did not send
                log.warning("a worker exited and is restarted", **fields)
            else:
                log.error("a worker died and is restarted", **fields)
            with anyio.move_on_after(delay):
                await self._stopping.wait()

    def _stop_with_failure(self) -> None:
        self._status = 1
        self._stop()

    async def _run(self, worker: Worker, relay: MetricsRelay) -> int:
        """Run one process in the slot and return its exit status."""
        try:
            ours, theirs = socket.socketpair()
        except OSError as failure:
            return _log_start_failure(worker, failure)
        link = self._links[worker.number] = SiblingLink(ours)
        if not self._reloaded:
            link.send(ReloadFailed())
        try:
            with theirs:
                await self._start(worker, theirs)
            return await self._follow(worker, link, relay)
        except OSError as failure:  # for example out of memory or descriptors
            return _log_start_failure(worker, failure)
        finally:
            del self._links[worker.number]
            link.close()
            if worker.process is not None:
                with anyio.CancelScope(shield=True):
                    await worker.process.aclose()
            worker.reset()

    async def _start(self, worker: Worker, link: socket.socket) -> None:
        worker.process = await anyio.open_process(
            self._program,
            stdin=subprocess.PIPE,
            stdout=None,
            stderr=None,
            start_new_session=True,
            pass_fds=(link.fileno(),),
        )
        if self._stopping.is_set():  # `_stop` ran before the process existed
            worker.signal(signal.SIGTERM)
        await worker.send_configuration(self._config, link=link.fileno())

    async def _follow(self, worker: Worker, link: SiblingLink, relay: MetricsRelay) -> int:
        """Wait for the process and return its exit status. Kill it if it hangs or misses the shutdown's deadline."""
        process = worker.process
        if process is None:
            return 0

        def received(message: Message) -> None:
            if isinstance(message, Heartbeat):
                worker.record_heartbeat(message)
            else:
                relay.received(worker.number, message)

        async with anyio.create_task_group() as following:
            following.start_soon(link.run, received)
            following.start_soon(self._kill_when_hung, worker)
            following.start_soon(self._kill_when_late, worker)
            status = await process.wait()
            following.cancel_scope.cancel()
        return status

    async def _kill_when_hung(self, worker: Worker) -> None:
        await worker.wait_until_hung()
        if not self._stopping.is_set():  # else `_kill_when_late` kills it at the deadline
            log.error("a worker does not respond and is killed", worker=worker.number)
            worker.signal(signal.SIGKILL)

    async def _kill_when_late(self, worker: Worker) -> None:
        await self._shutdown.wait_until(WORKERS_SECS)
        log.error("a worker does not stop and is killed", worker=worker.number)
        self._status = 1
        worker.signal(signal.SIGKILL)

    async def _reload_at_hangup(self, hangups: AsyncIterator[signal.Signals]) -> None:
        """Reload the configuration at each SIGHUP and send it to every worker."""
        async for _ in hangups:
            with log_exceptions("reading the configuration again"):
                await self._reload()

    async def _reload(self) -> None:
        self._reloaded = False  # until the configuration is applied
        try:
            self._config = live_part(self._config, self._reread())
            self._reloaded = True
        except ConfigError as problem:
            log.error("the configuration was not applied", problem=str(problem))  # noqa: TRY400 - one line
        finally:
            if not self._reloaded:
                for link in self._links.values():
                    link.send(ReloadFailed())
        if not self._reloaded:
            return
        for worker in self._workers:
            worker.changes = {}  # the reloaded configuration replaces what `admin set` changed
            await worker.send_configuration(self._config)


def _log_start_failure(worker: Worker, failure: OSError) -> int:
    reason = (failure.strerror or type(failure).__name__).lower()
    log.error("a worker's process cannot be started", worker=worker.number, reason=reason)
    return 1


def as_plain_values(section: object) -> dict[str, Any]:
    """Return the configuration with its secrets. Only for the pipe to a worker."""
    return {name: _plain_value(value) for name, value in values_of(section).items()}


def _plain_value(value: Any) -> Any:
    match value:
        case _ if is_section(value):
            return as_plain_values(value)
        case SecretStr():
            return value.get_secret_value()
        case tuple():
            return [_plain_value(item) for item in value]
        case Path():
            return str(value)
        case _:
            return value


def _addresses(config: ServerConfig) -> list[tuple[str, int]]:
    addresses = [config.listen]
    if config.metrics.enabled and config.metrics.bind_addr is not None:
        addresses.append(split_address(config.metrics.bind_addr))
    return addresses


def reserve(host: str, port: int) -> socket.socket:
    """Return a socket that holds the port until it is closed. Raises OSError if another program has the port.

    Only sockets with SO_REUSEPORT, such as the workers' listeners, can be bound to it besides. It does not listen, so it gets no
    connections.
    """
    if port == 0:
        raise CommandFailed("port: 0 cannot be used with several workers: choose a port")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an earlier run may be in TIME_WAIT
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((host, port))
        # from here on for the workers alone; a second server could bind besides with SO_REUSEADDR
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError:
        sock.close()
        raise
    return sock
