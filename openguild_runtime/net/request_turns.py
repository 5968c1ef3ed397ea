"""A queue for requests with long bodies and pipelined requests, so that they do not stall the loop.

In each turn of the loop, at least one of them begins, and more until `TURN_SECS` have passed. Parsing 64 KiB of JSON takes
up to 10 ms.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from openguild_proto.limits import MAX_WAITING_BODY_BYTES, MAX_WAITING_BODY_BYTES_OF_ADDRESS, TURN_SECS
from openguild_proto.policy.turns_by_address import TurnsByAddress

T = TypeVar("T")


class _Waiting(NamedTuple, Generic[T]):
    begin: Callable[[], T]
    begun: asyncio.Future[T]


class RequestTurns(Generic[T]):
    """The queue of one connection server."""

    def __init__(self) -> None:
        self._waiting: TurnsByAddress[_Waiting[T]] = TurnsByAddress(
            MAX_WAITING_BODY_BYTES, MAX_WAITING_BODY_BYTES_OF_ADDRESS
        )
        self._runs = False  # `_next` is scheduled

    def enter(self, address: str, nbytes: int, begin: Callable[[], T]) -> asyncio.Future[T] | None:
        """Queue `begin` for a request of `nbytes` from `address`, and return the future of its result.

        Returns None if too many bytes wait already. Addresses take turns.
        """
        loop = asyncio.get_running_loop()
        begun: asyncio.Future[T] = loop.create_future()
        if not self._waiting.add(address, _Waiting(begin, begun), nbytes):
            return None
        if not self._runs:
            self._runs = True
            loop.call_soon(self._next)
        return begun

    def _next(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + TURN_SECS
        while (waiting := self._waiting.take()) is not None:
            if waiting.begun.done():  # its task was cancelled
                continue
            try:
                result = waiting.begin()
            except Exception as failure:  # raised in the task of that request
                waiting.begun.set_exception(failure)
            else:
                waiting.begun.set_result(result)
            if loop.time() >= until:
                loop.call_soon(self._next)
                return
        self._runs = False
