"""Shutdown in phases, each with a deadline: unready, delay, drain in jittered waves, stop (PROTOCOL 12).

1. `/ready` responds 503 at once; the drain delay lets load balancers notice.
2. The listener accepts what waits for it, and closes. Idle keep-alive connections close; requests in progress get their
   response, then their connection closes.
3. Stream sockets are closed with 1012 over the drain window; each close reason says how long to wait before reconnecting.
4. Connections that are still open when the window ends are aborted.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable

import anyio
import structlog

from openguild_proto.policy.lifecycle import Lifecycle
from openguild_proto.ws import reasons
from openguild_proto.ws.close_codes import CloseCode
from openguild_runtime.net.connection_server import ConnectionServer
from openguild_runtime.net.transport import Transport
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.replica.runner import ReplicaRunner
from openguild_runtime.server.siblings import WorkerSlot
from openguild_runtime.system.turns import Turn

LAST_WORDS_SECS = 0.6  # for close handshakes and responses after the last wave
SCRAPE_SECS = 0.2  # for the response to the last scrape

log = structlog.get_logger("openguild.shutdown")


class DrainRequest:
    """Drains the whole server for the admin socket, by one SIGTERM. A second signal would end the server at once.

    A worker that drained alone would be replaced, so the signal goes to its supervisor, which passes it on to all workers.
    """

    def __init__(self, lifecycle: Lifecycle, slot: WorkerSlot | None) -> None:
        self._lifecycle = lifecycle
        self._supervisor = None if slot is None else slot.supervisor
        self._sent = False

    def __call__(self) -> None:
        if self._sent or self._lifecycle.is_draining:
            return
        self._sent = True
        # another process may have the ID of a dead supervisor, whose workers drain anyway
        orphan = self._supervisor != os.getppid()
        os.kill(os.getpid() if self._supervisor is None or orphan else self._supervisor, signal.SIGTERM)


async def drain(
    connection_server: ConnectionServer,
    replica: ReplicaRunner,
    lifecycle: Lifecycle,
    metrics: Metrics,
    stop_listening: Callable[[], Awaitable[None]],
    *,
    delay_secs: float,
    window_secs: float,
    clock: Callable[[], float],
) -> None:
    """Run the phases; return when every connection is closed or the window is over."""
    lifecycle.drain()
    metrics.draining(True)
    if delay_secs > 0:
        await anyio.sleep(delay_secs)
    await stop_listening()
    connection_server.admission.draining = True  # no stream opens from here on
    requests = [transport for transport in connection_server.transports if not transport.connection.is_websocket]
    turn = Turn(clock)
    await turn.each(requests, lambda transport: transport.close(CloseCode.SERVICE_RESTART, reasons.SERVER_RESTARTING))
    with anyio.move_on_after(window_secs + LAST_WORDS_SECS):
        replica.drain(window_secs)
        await connection_server.wait_empty()
    cut = len(connection_server.transports)
    await turn.each(list(connection_server.transports), Transport.abort)
    log.info("drained", connections_cut=cut)


async def end_scrapes(connection_server: ConnectionServer) -> None:
    """Close the connections of the metrics' own listener, idle ones at once."""
    connection_server.admission.draining = True
    for transport in list(connection_server.transports):
        transport.close(CloseCode.SERVICE_RESTART, reasons.SERVER_RESTARTING)
    with anyio.move_on_after(SCRAPE_SECS):
        await connection_server.wait_empty()
