"""Shutdown in phases, each with a deadline: unready, delay, drain in jittered waves, stop (CONTRACT A7, playbook "Deployments").

1. `/ready` answers 503 at once; the drain delay lets load balancers notice.
2. The listener closes. Idle keep-alive connections close; requests that have begun are answered, each as the last one.
3. Stream sockets are closed with 1012 over the drain window, each told how long to wait before it reconnects.
4. What is still open when the window ends is cut.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable

import anyio
import structlog

from openguild_proto.policy.draining import plan_waves
from openguild_proto.ws import reasons
from openguild_proto.ws.close_codes import CloseCode
from openguild_runtime.net.transport import Peer
from openguild_runtime.net.turns import in_turns
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.server.connection_server import Driver
from openguild_runtime.server.readiness import ReadinessProbe
from openguild_runtime.server.siblings import Seat

LAST_WORDS_SECS = 0.6  # for close handshakes and answers after the last wave
SCRAPE_SECS = 0.2  # for the last scrape to be answered

log = structlog.get_logger("openguild.shutdown")


class DrainRequest:
    """What an operator asks for by the admin socket: SIGTERM for the whole server, once. A second signal would end it at once.

    A worker that drained alone would be replaced, so its supervisor gets the signal and hands it on to all.
    """

    def __init__(self, readiness: ReadinessProbe, seat: Seat | None) -> None:
        self._readiness = readiness
        self._supervisor = None if seat is None else seat.supervisor
        self._sent = False

    def __call__(self) -> None:
        if self._sent or self._readiness.draining:
            return
        self._sent = True
        # a supervisor that has died has left its number to somebody else, and its workers drain anyway
        orphan = self._supervisor != os.getppid()
        os.kill(os.getpid() if self._supervisor is None or orphan else self._supervisor, signal.SIGTERM)


async def drain(
    driver: Driver,
    readiness: ReadinessProbe,
    metrics: Metrics,
    stop_listening: Callable[[], None],
    *,
    delay_secs: float,
    window_secs: float,
    clock: Callable[[], float],
) -> None:
    """Run the phases; returns when every connection is gone or the window is over."""
    readiness.draining = True
    metrics.draining(True)
    if delay_secs > 0:
        await anyio.sleep(delay_secs)
    stop_listening()
    driver.draining = True  # no stream opens from here on
    requests = [peer for peer in driver.peers if not peer.connection.is_websocket]
    await in_turns(requests, lambda peer: peer.close(CloseCode.SERVICE_RESTART, reasons.SERVER_RESTARTING), clock)
    with anyio.move_on_after(window_secs + LAST_WORDS_SECS):
        await _close_in_waves([peer for peer in driver.peers if peer.connection.is_websocket], window_secs, clock)
        await driver.wait_empty()
    cut = len(driver.peers)
    await in_turns(list(driver.peers), Peer.abort, clock)
    log.info("drained", connections_cut=cut)


async def end_scrapes(driver: Driver) -> None:
    """The connections of the metrics' own listener: those that wait for their next request end now."""
    driver.draining = True
    for peer in list(driver.peers):
        peer.close(CloseCode.SERVICE_RESTART, reasons.SERVER_RESTARTING)
    with anyio.move_on_after(SCRAPE_SECS):
        await driver.wait_empty()


async def _close_in_waves(peers: list[Peer], window_secs: float, clock: Callable[[], float]) -> None:
    random.shuffle(peers)
    waves = plan_waves(len(peers), window_secs)

    def send_away(peer: Peer) -> None:
        delay_ms = random.randrange(waves.spread_ms)  # noqa: S311 - jitter, not a secret
        peer.close(CloseCode.SERVICE_RESTART, reasons.reconnect_after(reasons.SERVER_RESTARTING, delay_ms))

    for start in range(0, len(peers), waves.size):
        if start:
            await anyio.sleep(waves.pause_secs)
        await in_turns(peers[start : start + waves.size], send_away, clock)
