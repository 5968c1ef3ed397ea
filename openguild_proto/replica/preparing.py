"""Streams that are being prepared before their upgrade is accepted: each has a ticket, until its `Prepared` is taken."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from openguild_proto.effects.base import Overloaded, StorageUnavailable
from openguild_proto.errors import ErrorCode
from openguild_proto.http.message import OpenStream
from openguild_proto.replica.actions import Prepared
from openguild_proto.replica.channels import ChannelGone
from openguild_proto.replica.notifications import TooManyChannels
from openguild_proto.replica.outputs import Outputs
from openguild_proto.replica.streams import Streams


class Preparing:
    """`tickets`: what cancels each, until its `Prepared` is taken."""

    def __init__(self, outputs: Outputs, streams: Streams) -> None:
        self.tickets: dict[int, Callable[[], None]] = {}
        self._outputs = outputs
        self._streams = streams
        self._last_ticket = 0

    def begin(self, stream: OpenStream) -> int:
        """Open a stream whose access was checked. Return a ticket; a `Prepared` follows, unless `cancel` comes first."""
        self._last_ticket += 1
        ticket = self._last_ticket

        def done(_: object, error: Exception | None) -> None:
            self.tickets[ticket] = partial(self._streams.abandon, stream) if error is None else _nothing
            self._outputs.add(Prepared(ticket, None if error is None else self._refusal(error)))

        cancel = self._outputs.procedures.start(self._streams.prepare(stream), "opening a stream", done)
        self.tickets.setdefault(ticket, cancel)
        return ticket

    def _refusal(self, error: Exception) -> ErrorCode:
        match error:
            case ChannelGone():
                return ErrorCode.NOT_FOUND
            case TooManyChannels():
                return ErrorCode.LIMIT_REACHED
            case Overloaded():
                return ErrorCode.OVERLOADED
            case StorageUnavailable():
                return ErrorCode.DATABASE_UNAVAILABLE
        self._outputs.defect("opening a stream", error)
        return ErrorCode.SERVER_ERROR

    def cancel(self, ticket: int) -> None:
        """Cancel the stream of this ticket, and release what it holds."""
        cancel = self.tickets.pop(ticket, None)
        if cancel is not None:
            cancel()

    def is_wanted(self, prepared: Prepared) -> bool:
        """Take the ticket of a `Prepared`. False: it was cancelled."""
        return self.tickets.pop(prepared.ticket, None) is not None


def _nothing() -> None:
    """Do nothing: cancels a stream that has already ended."""
