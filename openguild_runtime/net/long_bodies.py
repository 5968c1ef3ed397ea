"""Requests with long bodies have their turns: one begins in each turn of the loop.

To read 64 KiB of JSON takes up to 10 ms. Many that come at once would hold up everything else of the process.
"""

from __future__ import annotations

import asyncio

from openguild_proto.limits import MAX_WAITING_BODY_BYTES, MAX_WAITING_BODY_BYTES_OF_ADDRESS
from openguild_proto.policy.turns_by_address import TurnsByAddress


class LongBodies:
    """The queue of one connection server."""

    def __init__(self) -> None:
        self._waiting: TurnsByAddress[asyncio.Future[None]] = TurnsByAddress(
            MAX_WAITING_BODY_BYTES, MAX_WAITING_BODY_BYTES_OF_ADDRESS
        )
        self._runs = False  # in the next turn of the loop

    def enter(self, address: str, nbytes: int) -> asyncio.Future[None] | None:
        """Return what is done when the turn of a request from this address has come; None: too many bytes wait."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        if not self._waiting.add(address, waiter, nbytes):
            return None
        if not self._runs:
            self._runs = True
            loop.call_soon(self._next)
        return waiter

    def _next(self) -> None:
        waiter = self._waiting.take()
        while waiter is not None and waiter.done():  # its task was cancelled
            waiter = self._waiting.take()
        self._runs = waiter is not None
        if waiter is not None:
            waiter.set_result(None)
            asyncio.get_running_loop().call_soon(self._next)
