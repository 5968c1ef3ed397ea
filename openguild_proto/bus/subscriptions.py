"""The subscriptions that a bus is to have, by name, and those that its connection has.

Subscribing takes time, and wishes change meanwhile.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Change(NamedTuple, Generic[T]):
    """Make the subscription of this name, and then call `made`; or end it."""

    name: str
    ending: T | None


class Subscriptions(Generic[T]):
    """`T`: a subscription of the connection. `always`: names that are wanted whatever happens.

    Take `next_change` and carry it out, until there is none; one at a time, so that the changes of a name keep their order.
    A subscription that fails is made with the next connection.
    """

    def __init__(self, always: Iterable[str] = ()) -> None:
        self._wanted = dict.fromkeys(always)
        self._made: dict[str, T] = {}
        self._pending: OrderedDict[str, None] = (
            OrderedDict()
        )  # names that may have to change; a dict is slow to empty from its front

    def want(self, names: Iterable[str]) -> None:
        """These are to be heard. Idempotent."""
        for name in names:
            self._wanted[name] = self._pending[name] = None

    def unwant(self, names: Iterable[str]) -> None:
        """These are no longer to be heard. Idempotent."""
        for name in names:
            self._wanted.pop(name, None)
            self._pending[name] = None

    def reconnected(self) -> None:
        """There is a new connection, without subscriptions."""
        self._made.clear()
        self._pending = OrderedDict.fromkeys(self._wanted)

    def next_change(self) -> Change[T] | None:
        """Return what is to be done next; None: every wanted name has its subscription, and no other has one."""
        while self._pending:
            name, _ = self._pending.popitem(last=False)
            if name not in self._wanted:
                ending = self._made.pop(name, None)
                if ending is not None:
                    return Change(name, ending)
            elif name not in self._made:
                return Change(name, None)
        return None

    def made(self, name: str, subscription: T) -> None:
        """The connection has made the subscription."""
        self._made[name] = subscription

    def of(self, names: Iterable[str]) -> list[T]:
        """Return the subscriptions that there are of these names."""
        return [self._made[name] for name in names if name in self._made]

    def all(self) -> list[T]:
        """Return every subscription."""
        return list(self._made.values())
