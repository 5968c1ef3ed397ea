"""Closes the streams of a stopping replica in waves, so that their clients reconnect elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from openguild_proto.policy.drain_waves import plan_waves
from openguild_proto.procedures import Procedure, Sleep
from openguild_proto.replica.actions import Close, StreamSocket
from openguild_proto.replica.outputs import Outputs
from openguild_proto.ws import reasons
from openguild_proto.ws.close_codes import CloseCode


class Draining:
    """`jitter()` returns numbers in [0, 1): for the order of the sockets, and the time when each client reconnects."""

    def __init__(self, outputs: Outputs, jitter: Callable[[], float]) -> None:
        self._outputs = outputs
        self._jitter = jitter

    def begin(self, sockets: Sequence[StreamSocket], window_secs: float) -> None:
        """Close these with 1012 in waves over half of the window."""
        shuffled = sorted(sockets, key=lambda _: self._jitter())
        self._outputs.procedures.start(self._waves(shuffled, window_secs), "closing the streams in waves")

    def _waves(self, sockets: Sequence[StreamSocket], window_secs: float) -> Procedure[None]:
        waves = plan_waves(len(sockets), window_secs)

        def send_away(socket: StreamSocket) -> Close:
            delay_ms = int(self._jitter() * waves.spread_ms)
            reason = reasons.reconnect_after(reasons.SERVER_RESTARTING, delay_ms)
            return Close(socket, CloseCode.SERVICE_RESTART, reason)

        for start in range(0, len(sockets), waves.size):
            if start:
                yield from Sleep(waves.pause_secs).wait()
            self._outputs.add_each(sockets[start : start + waves.size], send_away)
