"""Sends the client's read positions. The core's `ReadMarks` decides which and when."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import msgspec

from openguild_proto.client import ApiError, ClientResponse, ReadMarks
from openguild_proto.client.read_marks import KEPT
from openguild_proto.gateway.commands import request_of
from openguild_proto.gateway.frames import Read
from openguild_runtime.client.gateway import Gateway
from openguild_runtime.client.transport import NotLoggedIn, OutcomeUnknown, decode_answer


class _Answer:
    """The answer that a caller waits for."""

    __slots__ = ("failure", "is_there", "result")

    def __init__(self) -> None:
        self.is_there = False
        self.result: Any = None
        self.failure: ApiError | None = None


class ReadMarker:
    """Sends positions over the gateway while it is open and the program keeps up, else with `send` (`Client.send`).

    A caller that waits for an answer sends all due positions, including those of other callers.
    """

    def __init__(
        self,
        open_gateway: Callable[[], Gateway | None],
        send: Callable[..., Awaitable[ClientResponse]],
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._open_gateway = open_gateway
        self._send = send
        self._clock = clock
        self._marks: ReadMarks[_Answer] = ReadMarks(jitter)
        self._is_sending = self._is_sending_all = False
        self._stepped = anyio.Event()
        self._last_refusal: ApiError | None = None

    async def mark(self, channel_id: str, sequence: int | None, patience_secs: float) -> Any:
        """Send a position, or a newer one of the same channel, and return the answer. Raises ApiError, OutcomeUnknown."""
        answer = _Answer()
        self._marks.add(channel_id, sequence, answer)
        self._last_refusal = None
        with anyio.move_on_after(patience_secs):
            await self._send_until(lambda: answer.is_there)
        if answer.failure is not None:
            raise answer.failure
        if not answer.is_there:
            raise self._reason()
        return answer.result

    def note(self, channel_id: str, sequence: int | None) -> None:
        """Add a position without waiting for its answer. One task of the open gateway sends all of them."""
        self._marks.add(channel_id, sequence)
        gateway = self._open_gateway()
        if gateway is not None and not self._is_sending_all:
            self._is_sending_all = True  # now, because the task begins later
            gateway.start(self.send_all)

    def forget(self) -> None:
        """Drop the positions of a user who has logged out. Waiting callers get NotLoggedIn."""
        for answer in self._marks.clear():
            answer.is_there, answer.failure = True, NotLoggedIn()

    def _reason(self) -> Exception:
        return self._last_refusal or OutcomeUnknown("no response in time")

    async def send_all(self) -> None:
        """Send until no positions are left or the gateway has ended."""
        self._is_sending_all = True
        try:
            await self._send_until(lambda: self._open_gateway() is None)
        finally:
            self._is_sending_all = False

    async def _send_until(self, is_done: Callable[[], bool]) -> None:
        while self._marks and not is_done():
            if self._is_sending:
                await self._stepped.wait()
                continue
            self._is_sending = True
            try:
                await self._send_one(is_done)
            finally:
                self._is_sending = False
                self._stepped.set()
                self._stepped = anyio.Event()

    async def _send_one(self, is_done: Callable[[], bool]) -> None:
        await anyio.sleep(max((self._marks.next_at() or 0.0) - self._clock(), 0.0))
        gateway = self._open_gateway()
        if gateway is not None:
            await gateway.opened()
        if is_done():
            return
        mark = self._marks.take(self._clock())
        if mark is None:
            return
        result: Any = None
        failure: ApiError | None = None
        answered: list[_Answer] | None = None
        try:
            with suppress(OutcomeUnknown):  # the position is sent again
                result = await self._attempt(gateway, Read(0, mark.channel_id, sequence=mark.sequence))
                answered = self._marks.answered()
        except ApiError as refusal:
            failure = refusal
            answered = self._marks.refused(refusal.status, refusal.retry_after_secs, self._clock())
            if refusal.status in KEPT:  # else it concerns one channel
                self._last_refusal = refusal
        finally:
            if answered is None:  # also if this caller was cancelled; another sends the position
                self._marks.unanswered(self._clock())
        for answer in answered or ():
            answer.is_there, answer.result, answer.failure = True, result, failure

    async def _attempt(self, gateway: Gateway | None, command: Read) -> Any:
        """Send once and return the answer. Raises ApiError, OutcomeUnknown."""
        if gateway is not None and not gateway.is_behind:
            return await gateway.attempt(command)
        request = request_of(command, token="", request_id="", client_address="")
        answer = await self._send(request.method, request.path, msgspec.Raw(request.body), repeatable=False)
        return decode_answer(answer.body, object)
