"""`openguild-server --chaos-seed N`: workers behind the proxy, with short-lived tokens and small rings, that are restarted."""

from __future__ import annotations

import random
import signal
import socket
from collections.abc import Callable
from dataclasses import replace

import anyio
import structlog

from openguild_proto.policy.chaos import ChaosPlan
from openguild_runtime.chaos.proxy import ChaosProxy
from openguild_runtime.config.server_config import ServerConfig
from openguild_runtime.embedded.private import private_servers
from openguild_runtime.process.shutdown import Shutdown, handle_signals
from openguild_runtime.server.failures import CommandFailed
from openguild_runtime.system.unix_socket import remove_stale_sockets
from openguild_runtime.workers.supervisor import Supervisor

HOST = "127.0.0.1"  # the workers' address
TOKEN_SECS = 20  # lifetime of an access token
RING_EVENTS = 16
DRAIN_SECS = 2.0

log = structlog.get_logger("openguild.chaos")


async def serve_chaos(config: ServerConfig, reread: Callable[[], ServerConfig], seed: int) -> int:
    """Serve until SIGTERM or SIGINT and return the exit status. Raises CommandFailed, OSError."""
    if config.storage == "memory":
        raise CommandFailed("chaos-seed: memory storage would be lost when workers restart: use --embedded")
    inner = chaotic(config, _free_port())
    if inner.admin_path is not None:
        remove_stale_sockets(inner.admin_path)
    plan = ChaosPlan(_chances(f"{seed} connections"), _chances(f"{seed} restarts"), inner.workers)
    host, port = config.listen
    shutdown, status = Shutdown(inner.drain.delay_secs + inner.drain.window_secs), 0
    async with (
        await anyio.create_tcp_listener(local_host=host, local_port=port) as listener,
        handle_signals(shutdown) as hangups,
        private_servers(inner, shutdown) as completed,
    ):
        supervisor = Supervisor(completed, lambda: chaotic(reread(), inner.port), shutdown)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, ChaosProxy(plan, (HOST, inner.port)).serve)
            tasks.start_soon(_restart, plan, supervisor)
            log.warning("injecting faults by a seed, for tests of clients", seed=seed, address=f"{host}:{port}")
            status = await supervisor.run(hangups)
            tasks.cancel_scope.cancel()
    shutdown.finish(status)
    return status


def chaotic(config: ServerConfig, port: int) -> ServerConfig:
    """Return the configuration of the workers, which listen on `port` of the loopback address."""
    shared = config.embedded or config.nats.url is not None
    return config.model_copy(
        update={
            "bind_addr": None,
            "host": HOST,
            "port": port,
            "workers": max(2, config.workers) if shared else config.workers,
            "session": replace(config.session, access_ttl_secs=TOKEN_SECS),
            "messaging": replace(config.messaging, queue_capacity=RING_EVENTS),
            "drain": replace(config.drain, delay_secs=0.0, window_secs=DRAIN_SECS),
        }
    )


async def _restart(plan: ChaosPlan, supervisor: Supervisor) -> None:
    while True:
        restart = plan.next_restart()
        await anyio.sleep(restart.after_secs)
        number = signal.SIGTERM if restart.in_order else signal.SIGKILL
        log.info("a worker ends", worker=restart.worker, signal=number.name)
        supervisor.signal_worker(restart.worker, number)


def _chances(seed: str) -> Callable[[], float]:
    return random.Random(seed).random  # noqa: S311 - faults that can be repeated


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
