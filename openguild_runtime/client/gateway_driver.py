"""Does the I/O of the core's `GatewayClient`: one task sends and waits for deadlines, one reads the open connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream, TaskGroup

from openguild_proto.client import ApiError, Backoff, GatewayClient, GatewayLink, is_temporary
from openguild_proto.gateway.client_events import ClientEvent, Connect, Disconnect, Ended, Interrupted, TokenNeeded
from openguild_proto.limits import CLIENT_HANDSHAKE_SECS
from openguild_runtime.client.connection_pool import ConnectionPool
from openguild_runtime.client.transport import (
    ATTEMPT_SECS,
    TRANSPORT_ERRORS,
    Address,
    OutcomeUnknown,
    close,
    describe_failure,
    receive,
)


class GatewayDriver:
    """Drives a `GatewayClient`. `on_event` is called with every event that the driver does not handle itself.

    `token(refused)` returns an access token other than `refused`. `has_room` tells whether to read more now.
    """

    def __init__(
        self,
        machine: GatewayClient,
        pool: ConnectionPool,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        token: Callable[[str | None], Awaitable[str]],
        on_event: Callable[[ClientEvent], None],
        has_room: Callable[[], bool],
    ) -> None:
        self._machine = machine
        self._link = GatewayLink(machine)
        self._pool = pool
        self._clock = clock
        self._jitter = jitter
        self._get_token = token
        self._on_event = on_event
        self._has_room = has_room
        self._token: str | None = None  # the one in use
        self._is_renewing = False
        self._tasks: TaskGroup | None = None  # set while it runs
        self._transport: ByteStream | None = None
        self._address: Address | None = None
        self._woken = anyio.Event()
        self._more_room = anyio.Event()
        self._is_reading = True

    def wake(self) -> None:
        """Let the driver run, after a command or after the machine was closed."""
        self._woken.set()
        self.resume_reading()

    def resume_reading(self) -> None:
        """Resume reading if `has_room` is true again."""
        self._more_room.set()

    async def run(self) -> None:
        """Drive the machine until it has ended. Raises ApiError when the session has ended."""
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                self._token = await self._fresh_token(None)
                self._machine.start(self._token, self._clock())
                while await self._perform_events(tasks):
                    await self._send()
                    await self._wait()
                    if not self._is_reading:
                        self._machine.postpone_silence(self._clock())
                    self._machine.handle_deadline(self._clock())
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise _only(group) from None
        finally:
            self._tasks = None
            await self._close_transport()

    async def _wait(self) -> None:
        """Wait until `wake` or the machine's deadline."""
        deadline = self._machine.next_deadline()
        with anyio.move_on_after(None if deadline is None else max(0.0, deadline - self._clock())):
            await self._woken.wait()
        self._woken = anyio.Event()

    async def _perform_events(self, tasks: TaskGroup) -> bool:
        """Perform the machine's events, and return False once it has ended."""
        while (event := self._machine.next_event()) is not None:
            match event:
                case Connect():
                    await self._connect(tasks)
                case Disconnect(code=code):
                    await self._disconnect(code)
                case TokenNeeded():
                    self.renew_token()
                case Ended():
                    self._on_event(event)
                    return False
                case _:
                    if isinstance(event, Interrupted) and event.retry_secs is not None and self._address is not None:
                        self._pool.mark_failed(self._address)
                    self._on_event(event)
        if not self._link.is_connected:
            await self._close_transport()
        return True

    # --- the connection ------------------------------------------------------------------------------

    async def _connect(self, tasks: TaskGroup) -> None:
        await self._close_transport()
        self._address = address = self._pool.address
        self._link.connect(address.authority, self._clock())
        try:
            with anyio.fail_after(CLIENT_HANDSHAKE_SECS):
                self._transport = await self._pool.connect(address)
        except TRANSPORT_ERRORS as failure:
            self._link.failed(describe_failure(failure), self._clock())
        else:
            tasks.start_soon(self._read, self._transport)

    async def _read(self, transport: ByteStream) -> None:
        while await self._may_read(transport):
            try:
                data = await receive(transport)
            except TRANSPORT_ERRORS as failure:
                if self._transport is transport:
                    self._link.failed(describe_failure(failure), self._clock())
                    self._woken.set()
                return
            if self._transport is not transport:
                return
            self._link.receive_data(data, self._clock())
            self._woken.set()
            if not data:
                return
            await anyio.lowlevel.checkpoint()  # let the program run even if the network is faster

    async def _may_read(self, transport: ByteStream) -> bool:
        """Wait until there is room for events. Return False if the connection has been replaced."""
        while self._transport is transport and self._machine.phase.brings_events and not self._has_room():
            self._is_reading = False
            self._more_room = anyio.Event()
            await self._more_room.wait()
        self._is_reading = True
        return self._transport is transport

    async def _send(self) -> None:
        transport, data = self._transport, self._link.data_to_send()
        if transport is None or not data:
            return
        try:
            with anyio.fail_after(ATTEMPT_SECS):
                await transport.send(data)
        except TRANSPORT_ERRORS as failure:
            if self._transport is transport and self._link.is_connected:
                self._link.failed(describe_failure(failure), self._clock())
                self._woken.set()

    async def _disconnect(self, code: int) -> None:
        transport, data = self._transport, self._link.disconnect(code)
        if transport is not None:
            with anyio.move_on_after(1, shield=True), suppress(*TRANSPORT_ERRORS):
                await transport.send(data)
        await self._close_transport()

    async def _close_transport(self) -> None:
        transport, self._transport = self._transport, None
        self.resume_reading()  # ends a task that waits to read it
        if transport is not None:
            await close(transport)

    # --- the token -----------------------------------------------------------------------------------

    def renew_token(self) -> None:
        """Get a new token in a task, unless one does so already, and pass it to the machine."""
        if not self._is_renewing and self._tasks is not None:
            self._is_renewing = True
            self._tasks.start_soon(self._renew_token)

    async def _renew_token(self) -> None:
        self._token = await self._fresh_token(self._token)
        self._is_renewing = False
        self._machine.set_token(self._token, self._clock())
        self._woken.set()

    async def _fresh_token(self, refused: str | None) -> str:
        """Return a token, retried without limit. Raises ApiError when the session has ended."""
        backoff = Backoff(self._jitter)
        while True:
            try:
                return await self._get_token(refused)
            except OutcomeUnknown:
                await anyio.sleep(backoff.next_delay())
            except ApiError as refusal:
                if not is_temporary(refusal.status):
                    raise
                await anyio.sleep(backoff.next_delay(refusal.retry_after_secs))


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Unwrap groups that have a single exception."""
    inner = group.exceptions[0]
    if len(group.exceptions) > 1:
        return group
    return _only(inner) if isinstance(inner, BaseExceptionGroup) else inner
