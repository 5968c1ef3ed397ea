"""Streams end with their tokens, also when the wall clock is set (openguild_proto/policy/clocks)."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import structlog

from openguild_proto.http.message import OpenStream
from openguild_proto.policy.clock_watch import ClockWatch, deadline_of
from openguild_proto.ws import reasons
from openguild_proto.ws.close_codes import CloseCode
from openguild_runtime.net.transport import Transport
from openguild_runtime.replica.runner import ReplicaRunner
from openguild_runtime.system.background import log_exceptions
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy

LOOK_SECS = 1.0  # a clock that was set is noticed this late
PEERS_AT_ONCE = 100  # then everybody else has a turn

log = structlog.get_logger("openguild.streams")


def expire_with_token(transport: Transport, stream: OpenStream, sources: ClocksAndEntropy) -> None:
    """From now on the socket is closed with 4401 when the token ends."""
    deadline = deadline_of(stream.expires_ms, sources.monotonic(), sources.wall())
    transport.connection.expire_at(deadline, CloseCode.TOKEN_ENDED, reasons.EXPIRED)


async def watch_clocks(replica: ReplicaRunner, sources: ClocksAndEntropy) -> None:
    """Until cancelled: whenever the wall clock was set, every stream gets its deadline anew."""
    watch = ClockWatch(sources.monotonic(), sources.wall())
    while True:
        await anyio.sleep(LOOK_SECS)
        with log_exceptions("looking at the clocks"):
            by = watch.moved(sources.monotonic(), sources.wall())
            if by:
                log.warning(
                    f"the wall clock was moved by {by:+.1f} s: tokens end by it; see that only NTP sets it, in small steps"
                )
                await _renew_deadlines(replica, sources)


async def _renew_deadlines(replica: ReplicaRunner, sources: ClocksAndEntropy) -> None:
    for number, transport in enumerate(replica.transports()):
        if number % PEERS_AT_ONCE == 0:
            await anyio.lowlevel.checkpoint()
        if transport.stream is not None and transport.connection.is_open:
            expire_with_token(transport, transport.stream, sources)
            if (transport.connection.next_deadline() or 0) <= sources.monotonic():
                transport.deadline_passed()  # here, and not thousands in one turn of the timer wheel
            else:
                transport.settle()
