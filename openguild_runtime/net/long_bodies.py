"""Requests with long bodies have their turns: one begins in each turn of the loop.

To read 64 KiB of JSON takes up to 10 ms. Many that come at once would hold up everything else of the process.
"""

from __future__ import annotations

import asyncio

from openguild_proto.policy.addresses import limit_key
from openguild_proto.policy.turns_by_address import TurnsByAddress


class LongBodies:
    """The queue of one connection server."""

    def __init__(self) -> None:
        self._waiting: TurnsByAddress[asyncio.Future[None]] = TurnsByAddress()
        self._runs = False  # in the next turn of the loop

    async def turn(self, address: str) -> None:
        """Return when the turn of a request from this address has come."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiting.add(limit_key(address), waiter)
        if not self._runs:
            self._runs = True
            loop.call_soon(self._next)
        await waiter

    def _next(self) -> None:
        waiter = self._waiting.take()
        while waiter is not None and waiter.done():  # its task was cancelled
            waiter = self._waiting.take()
        self._runs = waiter is not None
        if waiter is not None:
            waiter.set_result(None)
            asyncio.get_running_loop().call_soon(self._next)
