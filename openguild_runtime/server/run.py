"""Serves in this process until a signal ends it: private servers, the parts, the shutdown."""

from __future__ import annotations

import gc
from collections.abc import Callable

import anyio
import structlog

from openguild_runtime.admin.reload import token_keys
from openguild_runtime.bus.kinds import configured_bus
from openguild_runtime.config.server_config import ServerConfig
from openguild_runtime.embedded.private import private_servers
from openguild_runtime.observability import logs
from openguild_runtime.process.shutdown import WORKER_HEAD_START_SECS, Shutdown, handle_signals
from openguild_runtime.server.app import Server, native_ring
from openguild_runtime.server.descriptors import raise_limit
from openguild_runtime.server.siblings import WorkerSlot

log = structlog.get_logger("openguild.server")


async def serve(
    config: ServerConfig, slot: WorkerSlot | None = None, reread: Callable[[], ServerConfig] | None = None
) -> int:
    """Serve until SIGTERM or SIGINT and return the exit status. SIGHUP applies the configuration that `reread` returns.

    Raises OSError if an address cannot be bound, EmbeddedError, and the exceptions of asyncpg.
    """
    descriptors = raise_limit()
    tune_collector()
    shutdown = Shutdown(
        config.drain.delay_secs + config.drain.window_secs,
        head_start_secs=0.0 if slot is None else WORKER_HEAD_START_SECS,
    )
    async with (
        handle_signals(shutdown) as hangups,
        private_servers(config, shutdown) as completed,
        anyio.create_task_group() as tasks,
    ):
        server = Server(completed, tasks, descriptors, slot=slot, reread=reread)
        _announce(completed)
        try:
            await server.run(shutdown, hangups)
        finally:
            await server.aclose(shutdown)
            tasks.cancel_scope.cancel()
    log.info("stopped")
    shutdown.finish(0)
    return 0


def tune_collector() -> None:
    """Make full garbage collections rare, so that they do not block the loop: connections live long and make few cycles."""
    gc.collect()
    gc.freeze()  # imported modules are never freed
    gc.set_threshold(5_000, 4, 1_000)  # about 2 ms for generation 0 and 8 ms for generation 1


def _announce(config: ServerConfig) -> None:
    if logs.is_for_people():
        for values in config.not_default():
            log.info("configuration", **values)
        log.info("the rest of the configuration is the default: openguild-server config dump")
    else:
        log.info("resolved server configuration", **config.shown())
    log.info("token keys", **token_keys(config.key_ring()))
    if not native_ring():
        log.warning("fan-out uses the pure-Python ring: the compiled extension is not installed or is disabled")
    if config.storage == "memory":
        log.warning("memory storage: everything is lost when this process ends")
    if configured_bus(config) is None and config.storage != "memory":
        log.warning("nats.url is not set: other replicas see this one's events only at their next tail check")
