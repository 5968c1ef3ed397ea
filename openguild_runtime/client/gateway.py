"""The client's gateway: events of all logs that the user may read, and commands, over one socket."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import anyio
import msgspec
from anyio.abc import TaskGroup

from openguild_proto.client import (
    AccountLogs,
    ApiError,
    Backoff,
    GatewayClient,
    ResumePosition,
    Unauthorized,
    is_temporary,
    refused_command,
    session_end,
)
from openguild_proto.errors import LocalProtocolError
from openguild_proto.gateway import client_events as told
from openguild_proto.gateway.client_commands import keyed
from openguild_proto.gateway.commands import key_of
from openguild_proto.gateway.encoding import Encoding
from openguild_proto.gateway.frames import AnyCommand, Typing
from openguild_proto.limits import MAX_GATEWAY_LOGS, MAX_PENDING_COMMANDS
from openguild_proto.ws.close_codes import CloseCode
from openguild_runtime.client.connection_pool import ConnectionPool
from openguild_runtime.client.events import Connected, Event, Interrupted, LogEvent, LogFollowed, LogGone
from openguild_runtime.client.gateway_driver import GatewayDriver
from openguild_runtime.client.log_events import event_of_hint, log_event
from openguild_runtime.client.messages import Messages
from openguild_runtime.client.subscription import StreamEnded
from openguild_runtime.client.transport import ClientClosed, OutcomeUnknown
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy

T = TypeVar("T")

logger = logging.getLogger("openguild.client")

MAX_WAITING_EVENTS = 1_000  # not yet taken by the program; more are read only while a command waits for its answer
CLOSE_SECS = 3.0


class _Answer:
    """The answer that a caller waits for."""

    __slots__ = ("arrived", "outcome", "was_sent")

    def __init__(self) -> None:
        self.arrived = anyio.Event()
        self.outcome: told.Answered | told.Refused | told.Dropped | None = None
        self.was_sent = False  # whether the command was sent but not answered


class Gateway:
    """An async iterator of `Event`, within `async with`. For one consumer; commands may come from any task.

    It follows all logs that the user may read, after their `positions` or else from now on; if not `everything`, only logs
    passed to `follow`. An event counts as handled, which moves `positions`, after `handled` or when the next one is taken.
    A program that takes no events is a slow reader, for which the server keeps them.

    The iterator raises Unauthorized when the session has ended, and StreamEnded when the server refuses this client or sends
    an event that cannot be decoded. Commands raise ApiError and OutcomeUnknown.
    """

    def __init__(
        self,
        client: Messages,
        pool: ConnectionPool,
        sources: ClocksAndEntropy,
        jitter: Callable[[], float],
        token: Callable[[str | None], Awaitable[str]],
        positions: dict[str, ResumePosition],
        *,
        retry_secs: float,
        everything: bool = True,
    ) -> None:
        self._client = client
        self._clock = sources.monotonic
        self._random_bytes = sources.random_bytes
        self._jitter = jitter
        self._positions = positions
        self._retry_secs = retry_secs
        self._machine = GatewayClient(Encoding.JSON, jitter=jitter, random_bytes=sources.random_bytes)
        self._logs = AccountLogs(self._machine) if everything else None
        self._has_warned = False  # that there are too many logs
        self._driver = GatewayDriver(self._machine, pool, self._clock, jitter, token, self._hear, self._has_room)
        self._tasks: TaskGroup | None = None
        self._waiting: deque[Event] = deque()
        self._arrived = anyio.Event()
        self._taken: Event | None = None  # by the program, and not yet handled
        self._answers: dict[int, _Answer] = {}
        # bounds the unanswered commands; others wait
        self._turns = anyio.Semaphore(MAX_PENDING_COMMANDS, fast_acquire=True)
        self._end: Exception | None = None
        self._opened = anyio.Event()  # set when there is a connection or the gateway has ended
        self._over = anyio.Event()

    # --- opening and closing -------------------------------------------------------------------------

    async def __aenter__(self) -> Gateway:
        if self._logs is not None:
            own_first = sorted(self._positions.items(), key=lambda kept: kept[0].startswith("channel:"))
            for log, place in own_first:
                with suppress(LocalProtocolError):  # too many or invalid logs, stored by another program
                    self._machine.follow(log, place)
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._drive)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the gateway. If the program failed, its last event is not handled and is delivered again next time."""
        tasks, self._tasks = self._tasks, None
        if kind is None:
            self.handled()
        self.close()
        with anyio.move_on_after(CLOSE_SECS, shield=True):
            await self._over.wait()
        if tasks is not None:
            tasks.cancel_scope.cancel()
            await tasks.__aexit__(None, None, None)  # raises the failure itself, not in a group

    def close(self) -> None:
        """End the gateway. Events not taken yet are delivered when it is opened again. Idempotent."""
        self._waiting.clear()
        self._machine.close()
        self._driver.wake()

    async def _drive(self) -> None:
        try:
            await self._driver.run()
        except (ApiError, ClientClosed, StreamEnded) as end:
            self._end = end
        finally:
            self._over.set()
            self._arrived.set()
            self._opened.set()
            for answer in self._answers.values():
                answer.arrived.set()

    @property
    def is_over(self) -> bool:
        """Whether the gateway has ended, so that no more events follow."""
        return self._over.is_set()

    @property
    def is_behind(self) -> bool:
        """Whether so many events wait for the program that commands go over HTTP, since answers follow more events."""
        return len(self._waiting) >= MAX_WAITING_EVENTS

    # --- events --------------------------------------------------------------------------------------

    def __aiter__(self) -> Gateway:
        return self

    async def __anext__(self) -> Event:
        self.handled()
        while not self._waiting:
            if self._over.is_set():
                if self._end is not None:
                    raise self._end
                raise StopAsyncIteration
            self._arrived = anyio.Event()
            await self._arrived.wait()
        self._taken = event = self._waiting.popleft()
        self._driver.resume_reading()
        return event

    def handled(self) -> None:
        """Move `positions` past the last event, because the program has handled it. Taking the next one does the same."""
        match self._taken:
            case LogEvent() | LogFollowed() as event:
                self._positions[event.log] = event.place
            case LogGone(log=log):
                self._positions.pop(log, None)
        self._taken = None

    def _has_room(self) -> bool:
        """Return whether to read. While a command waits, reading continues, because its answer may follow unread events."""
        return not self.is_behind or bool(self._answers)

    def _hear(self, event: told.ClientEvent) -> None:
        """Handle an event of the core's `GatewayClient`."""
        match event:
            case told.Answered(ref=ref) | told.Refused(ref=ref) | told.Dropped(ref=ref):
                answer = self._answers.get(ref)
                if answer is not None:
                    answer.outcome = event
                    answer.arrived.set()
                return
            case told.Ended(code=code, reason=reason, error=error):
                if code is None:  # closed by the program
                    self._waiting.clear()
                else:
                    self._end = session_end(event) or StreamEnded(code, reason, error)
                return
            case told.Opened():
                self._opened.set()
            case told.Interrupted() if self._opened.is_set():
                self._opened = anyio.Event()
        try:
            if self._logs is not None:
                self._follow_account(self._logs, event)
            heard = self._event_of(event)
        except msgspec.MsgspecError as failure:  # a reconnect would deliver the same event again
            raise StreamEnded(CloseCode.INVALID_PAYLOAD, f"the server's event cannot be read: {failure}") from failure
        if heard is not None:
            self._waiting.append(heard)
            self._arrived.set()

    def _event_of(self, event: told.ClientEvent) -> Event | None:
        match event:
            case told.Delivered():
                return log_event(self._client, event)
            case told.HintReceived():  # it may be missed
                return event_of_hint(event) if not self.is_behind else None
            case told.Opened(ready=ready):
                return Connected(ready)
            case told.Interrupted(reason=reason, retry_secs=retry_secs):
                return Interrupted(reason, retry_secs)
            case told.Followed(log=log, epoch=epoch, after=after, head=head, recovered=recovered):
                return LogFollowed(log, epoch, after, head, recovered)
            case told.LogGone(log=log, code=code) if not self._machine.follows(log):
                return LogGone(log, code)
            case told.FollowRefused(log=log):
                return LogGone(log, "access_lost")
        return None

    # --- logs ----------------------------------------------------------------------------------------

    def follow(self, log: str, *, tail: int | None = None) -> None:
        """Follow a log, such as "channel:<id>": after its position, else with its newest `tail` events, else from now on.

        Has no effect if it is followed already. Raises LocalProtocolError beyond MAX_GATEWAY_LOGS and for invalid arguments.
        """
        if self._machine.follows(log):
            return
        place, taken = self._positions.get(log), self._taken
        if isinstance(taken, LogEvent | LogFollowed) and taken.log == log:  # the program handles it now
            place = taken.place
        self._machine.follow(log, place, tail=tail)
        self._driver.wake()

    def unfollow(self, log: str) -> None:
        """Stop following a log. Events not taken yet are delivered when it is followed again. Idempotent."""
        place = self._machine.unfollow(log)
        about = (LogEvent, LogFollowed, LogGone)
        dropped = [event for event in self._waiting if isinstance(event, about) and event.log == log]
        self._waiting = deque(event for event in self._waiting if not (isinstance(event, about) and event.log == log))
        first = next((event for event in dropped if not isinstance(event, LogGone)), None)
        if first is not None:
            place = first.place if isinstance(first, LogFollowed) else ResumePosition(first.epoch, first.sequence - 1)
        if place is not None:
            self._positions.setdefault(log, place)
        self._driver.wake()

    def _follow_account(self, logs: AccountLogs, event: told.ClientEvent) -> None:
        match event:
            case told.Opened(ready=ready):
                logs.opened(ready)
            case told.Followed():
                logs.followed(event)
            case told.Delivered():
                logs.delivered(event)
            case told.LogGone(log=log) | told.FollowRefused(log=log) if not self._machine.follows(log):
                logs.gone(log)
        if logs.skipped and not self._has_warned:
            self._has_warned = True
            logger.warning("too many logs: following %d, but not %s and others", MAX_GATEWAY_LOGS, min(logs.skipped))
        if logs.wants_guilds():
            self.start(partial(self._list_guilds, logs))
        while (guild_id := logs.next_listing()) is not None:
            self.start(partial(self._list_channels, logs, guild_id))

    async def _list_guilds(self, logs: AccountLogs) -> None:
        guilds = await self._read(f"user:{self._client.user_id}", self._guilds)
        logs.joined(guilds or ())
        self._driver.wake()

    async def _guilds(self) -> list[str]:
        return [guild.guild_id async for guild in self._client.guilds()]

    async def _list_channels(self, logs: AccountLogs, guild_id: str) -> None:
        found = await self._read(f"guild:{guild_id}", partial(self._client.channels_at, guild_id))
        if found is not None:
            head, channels = found
            logs.listed(guild_id, head, [channel.channel_id for channel in channels])
            self._driver.wake()

    async def _read(self, log: str, read: Callable[[], Awaitable[T]]) -> T | None:
        """Return the result of `read`, retried without limit, or None if the log is no longer followed or the session has ended."""
        backoff = Backoff(self._jitter)
        while self._machine.follows(log):
            try:
                return await read()
            except ClientClosed:
                return None
            except OutcomeUnknown:
                await anyio.sleep(backoff.next_delay())
            except ApiError as refusal:
                if not is_temporary(refusal.status):
                    return None  # the log or the connection reports the end of guild or session
                await anyio.sleep(backoff.next_delay(refusal.retry_after_secs))
        return None

    # --- commands ------------------------------------------------------------------------------------

    async def opened(self) -> None:
        """Wait until there is a connection or the gateway has ended."""
        await self._opened.wait()

    def start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `work` in a task, which is cancelled when the gateway is closed."""
        if self._tasks is not None:
            self._tasks.start_soon(work)

    async def attempt(self, command: AnyCommand) -> Any:
        """Send a command once, on one connection, and return its result. Raises ApiError, OutcomeUnknown."""
        outcome = await self._answer_to(command, self._clock() + self._retry_secs)
        if isinstance(outcome, told.Answered):
            return outcome.result
        if isinstance(outcome, told.Dropped):
            raise OutcomeUnknown("the connection was lost")
        refusal = refused_command(outcome)
        if isinstance(refusal, Unauthorized):  # the token has expired
            self._driver.renew_token()
            raise OutcomeUnknown(str(refusal)) from refusal
        raise refusal

    async def execute(self, command: AnyCommand) -> Any:
        """Perform a command exactly once, across connections, and return its result. Raises ApiError, OutcomeUnknown."""
        command = keyed(command, self._random_bytes)
        backoff, deadline = Backoff(self._jitter), self._clock() + self._retry_secs
        may_be_done = False
        while True:
            try:
                outcome = await self._answer_to(command, deadline)
            except ApiError as end:
                if may_be_done:
                    raise OutcomeUnknown(str(end), key_of(command)) from end
                raise
            if isinstance(outcome, told.Answered):
                return outcome.result
            if isinstance(outcome, told.Dropped):  # only typing, which may be lost
                return None
            refusal = refused_command(outcome)
            may_be_done = may_be_done or outcome.may_be_done
            delay = backoff.next_delay(refusal.retry_after_secs)
            if isinstance(refusal, Unauthorized):  # the token has expired
                self._driver.renew_token()
                if isinstance(command, Typing):
                    return None
            is_final = isinstance(command, Typing) or not (
                isinstance(refusal, Unauthorized) or is_temporary(refusal.status)
            )
            if is_final or self._clock() + delay > deadline:
                if may_be_done:
                    raise OutcomeUnknown(str(refusal), key_of(command)) from refusal
                raise refusal
            await anyio.sleep(delay)

    async def _answer_to(self, command: AnyCommand, deadline: float) -> told.Answered | told.Refused | told.Dropped:
        answer = _Answer()
        with anyio.move_on_after(deadline - self._clock()):
            async with self._turns:
                if not self._over.is_set():
                    await self._exchange(command, answer)
        if answer.outcome is None:
            raise self._no_answer(command, was_sent=answer.was_sent)
        return answer.outcome

    async def _exchange(self, command: AnyCommand, answer: _Answer) -> None:
        ref = self._machine.send(command)
        self._answers[ref] = answer
        self._driver.wake()
        try:
            await answer.arrived.wait()
        finally:
            del self._answers[ref]
            answer.was_sent = self._machine.withdraw(ref)

    def _no_answer(self, command: AnyCommand, *, was_sent: bool) -> ApiError | OutcomeUnknown:
        """Return the error of an unanswered command: the end of the session if it was never sent, else OutcomeUnknown."""
        if isinstance(self._end, ApiError) and not was_sent:
            return self._end
        in_time = "no response in time" if was_sent else "no connection in time"
        reason = f"the gateway was closed: {self._end or 'by this program'}" if self._over.is_set() else in_time
        return OutcomeUnknown(reason, key_of(command))
