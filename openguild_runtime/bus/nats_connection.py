"""One connection to one nats-server, built on nats-py's client.

Differences from nats-py: it makes one attempt at one server; an error that does not end the connection on the server does
not end it here; it reports every error and keeps the first as the reason of the end; `tls://` requires TLS; a ping is sent
after pending data; the end of the reading task ends the connection.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import nats.errors
from nats.aio.client import Client, RawCredentials
from nats.aio.subscription import Subscription

from openguild_proto.bus.faults import Fault
from openguild_proto.bus.nats import (
    CLOSED,
    CREDENTIALS_FILE,
    GARBAGE,
    NO_TLS,
    REFUSED,
    SHUTTING_DOWN,
    SILENT,
    SLOW_SUBSCRIBER,
    SUBSCRIPTIONS,
    UNREACHABLE,
    fault_from_bytes,
    fault_from_error_text,
    parse_denial,
    tls_fault,
)
from openguild_runtime.config.nats_servers import NatsServer, read_credentials

CONNECT_TIMEOUT_SECS = 2
MAX_OUTSTANDING_PINGS = 2
CONFIRM_LIMIT_SECS = 3_600  # never reached: nats-py stops reading after an answer to a ping that has timed out
CLOSE_LIMIT_SECS = 0.5
OUTGOING_BYTES = 8 * 1024 * 1024

FAILURES = (OSError, nats.errors.Error, TimeoutError)  # raised when a connection fails or ends
PROTOCOL_FAILURES = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
)  # raised by nats-py if the peer is not a nats-server


class ConnectionFailed(Exception):
    """The connection cannot be made, or has ended; `fault` says why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.cause)
        self.fault = fault


class NatsConnection(Client):
    """A connection; `ended` is set when it ends, and `fault` then says why.

    `on_denied(connection, action, subject)` and `on_fault(connection, fault)` are called for errors that do not end it.
    `action` is publish or subscribe, `subject` is in lower case. `has_alternatives` tells that other servers are configured.
    """

    def __init__(
        self,
        server: NatsServer,
        *,
        on_denied: Callable[[NatsConnection, str, str], None],
        on_fault: Callable[[NatsConnection, Fault], None],
        has_alternatives: bool,
    ) -> None:
        super().__init__()
        self.server = server
        self.ended = anyio.Event()
        self.greeted = False
        self._on_denied = on_denied
        self._on_fault = on_fault
        self._has_alternatives = has_alternatives
        self._wants_tls = False
        self._first_fault: Fault | None = None

    # --- connecting ----------------------------------------------------------------------------------

    async def open(self, *, tls: ssl.SSLContext | None, credentials: Path | None, keepalive_secs: float) -> None:
        """Connect and log in. Raises ConnectionFailed; other exceptions of nats-py mean a bug here."""
        self._wants_tls = tls is not None
        try:
            login = (
                RawCredentials(await anyio.to_thread.run_sync(read_credentials, credentials)) if credentials else None
            )
        except (OSError, ValueError):
            raise ConnectionFailed(CREDENTIALS_FILE) from None
        server = self.server
        try:
            await self.connect(
                servers=[server.url],
                allow_reconnect=False,
                no_echo=True,  # this replica has its own events already
                connect_timeout=CONNECT_TIMEOUT_SECS,
                ping_interval=keepalive_secs,  # type: ignore[arg-type]  # fractions work, it only sleeps
                max_outstanding_pings=MAX_OUTSTANDING_PINGS,
                pending_size=OUTGOING_BYTES,
                user=server.user,
                password=server.password,
                token=server.token,
                user_credentials=login,
                tls=tls,
                closed_cb=self._on_closed,
                error_cb=self._on_error,
                lame_duck_mode_cb=self._on_lame_duck,
            )
            if not self.is_connected:  # the server closed it after CONNECT, which nats-py ignores
                raise nats.errors.UnexpectedEOF
        except (*FAILURES, *PROTOCOL_FAILURES) as failure:
            raise ConnectionFailed(self._first_fault or self._fault_of(failure)) from failure

    def _fault_of(self, failure: Exception) -> Fault:
        # A server that closes the connection sends the reason first, which stays unread if a write fails before.
        unread = getattr(getattr(self._transport, "_io_reader", None), "_buffer", b"")
        reported = fault_from_bytes(unread)
        if reported is not None:
            return reported
        if not self.greeted and self._transport is not None and self._transport.at_eof():
            return UNREACHABLE  # a proxy accepts and closes when its server is down
        return fault_from_exception(failure, greeted=self.greeted)

    async def _select_next_server(self) -> None:
        """Try the one server once. nats-py would retry here and then report that there is no server."""
        server = self._server_pool[0]
        await self._connect_to_server(server)
        self._current_server = server

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        largest = info.get("max_payload", self.max_payload)
        if type(largest) is not int or largest < 0:
            raise nats.errors.ProtocolError
        self._max_payload = largest
        if initial_connection:
            self.greeted = True
            if self._wants_tls and not info.get("tls_required"):
                if not info.get("tls_available"):
                    raise nats.errors.SecureConnWantedError
                info["tls_required"] = True  # nats-py starts TLS only if this is set
        await super()._process_info(info, initial_connection)

    # --- errors of the server ------------------------------------------------------------------------

    async def _process_err(self, err_msg: str) -> None:
        denial = parse_denial(err_msg)
        if denial is not None:
            self._on_denied(self, *denial)
            return
        fault = fault_from_error_text(err_msg)
        if fault is SUBSCRIPTIONS:  # the server keeps the connection, nats-py would end it
            self._on_fault(self, fault)
            return
        self._first_fault = self._first_fault or fault
        await super()._process_err(err_msg)

    async def _on_error(self, failure: Exception) -> None:
        if isinstance(failure, nats.errors.SlowConsumerError):
            self._on_fault(self, SLOW_SUBSCRIBER)
        elif self.greeted:
            self._first_fault = self._first_fault or self._fault_of(failure)

    async def _on_closed(self) -> None:
        self._mark_ended()

    async def _on_lame_duck(self) -> None:
        """Move to another server, if there is one. This one closes the connection within minutes."""
        self._first_fault = self._first_fault or SHUTTING_DOWN
        if self._has_alternatives:
            self._mark_ended()

    def leave(self, fault: Fault) -> None:
        """End the connection, for this reason unless an earlier one is known."""
        self._first_fault = self._first_fault or fault
        self._mark_ended()

    async def _read_loop(self) -> None:
        await super()._read_loop()
        if self.is_connected:  # invalid data has ended the reading task
            self._first_fault = self._first_fault or GARBAGE
        self._mark_ended()  # nats-py reports the end only if its own close succeeds

    # --- use -----------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether it is connected and not about to end."""
        return self.is_connected and not self.ended.is_set()

    @property
    def fault(self) -> Fault:
        """Why the connection has ended."""
        if self._first_fault is None and self.last_error is not None:
            return fault_from_exception(self.last_error, greeted=True)
        return self._first_fault or CLOSED

    async def confirm(self) -> None:
        """Wait until the server has received everything written before. Its errors have been reported by then.

        Sends two pings, because nats-py writes a ping before its pending data. Raises ConnectionFailed when the
        connection ends.
        """
        for _ in range(2):
            if self.alive:
                with suppress(*FAILURES):
                    await self.flush(CONFIRM_LIMIT_SECS)
        if not self.alive:
            raise ConnectionFailed(self.fault)

    def _mark_ended(self) -> None:
        self.ended.set()
        pings, self._pongs = self._pongs, []
        for ping in pings:  # nats-py never completes them
            if not ping.done():
                ping.set_result(None)

    async def resubscribe(self, subscription: Subscription) -> None:
        """Send the subscription again under its ID. The server ignores it unless it had dropped or denied it."""
        await self._send_subscribe(subscription)

    async def close_now(self) -> None:
        """Close in order within CLOSE_LIMIT_SECS, else abort. nats-py may hang if the peer does not read, and after TLS."""
        tasks = [subscription._wait_for_msgs_task for subscription in self._subs.values()]
        if self._transport is not None:
            with (
                anyio.move_on_after(CLOSE_LIMIT_SECS, shield=True),
                suppress(*FAILURES, *PROTOCOL_FAILURES, asyncio.InvalidStateError),
            ):
                await self.close()
        for task in (*tasks, self._reading_task, self._ping_interval_task, self._flusher_task):
            if task is not None:
                task.cancel()  # nats-py leaves them running when its close is cancelled
        writer = getattr(self._transport, "_io_writer", None)  # the only way to abort
        if writer is not None:
            writer.transport.abort()


def fault_from_exception(failure: Exception, *, greeted: bool) -> Fault:
    """Return the fault for an exception of nats-py or the system. `greeted` tells that the server had sent its INFO."""
    if isinstance(failure, ssl.SSLError):
        return tls_fault(failure.reason, getattr(failure, "verify_code", None))
    if isinstance(failure, nats.errors.SecureConnWantedError):
        return NO_TLS
    if isinstance(failure, nats.errors.AuthorizationError):
        return REFUSED
    if isinstance(failure, (TimeoutError, nats.errors.StaleConnectionError)) and not isinstance(
        failure, nats.errors.UnexpectedEOF
    ):
        return SILENT
    if isinstance(failure, (OSError, nats.errors.UnexpectedEOF, nats.errors.ConnectionClosedError)):
        return CLOSED if greeted or isinstance(failure, nats.errors.UnexpectedEOF) else UNREACHABLE
    if type(failure) is nats.errors.Error and greeted:
        return fault_from_error_text(str(failure))
    return GARBAGE
