"""The wanted subscriptions of a bus by name, and those that its connection has.

Subscribing takes time, and the wanted names change meanwhile.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Change(NamedTuple, Generic[T]):
    """A change to make: subscribe to `name` and then call `subscribed`, or unsubscribe `ending`."""

    name: str
    ending: T | None


class Subscriptions(Generic[T]):
    """Tracks subscriptions. `T`: a subscription of the connection. `always`: names that are wanted from the start.

    Take `next_change` and carry it out until it returns None, one at a time, so that the changes of a name keep their order. A
    subscription that fails is retried on the next connection.
    """

    def __init__(self, always: Iterable[str] = ()) -> None:
        self._wanted = dict.fromkeys(always)
        self._made: dict[str, T] = {}
        # Names that may have to change. An OrderedDict, because a dict is slow to pop from its front.
        self._pending: OrderedDict[str, None] = OrderedDict()

    def add(self, names: Iterable[str]) -> None:
        """Add wanted names. Idempotent."""
        for name in names:
            self._wanted[name] = self._pending[name] = None

    def remove(self, names: Iterable[str]) -> None:
        """Remove wanted names. Idempotent."""
        for name in names:
            self._wanted.pop(name, None)
            self._pending[name] = None

    def reconnected(self) -> None:
        """Handle a new connection, which has no subscriptions."""
        self._made.clear()
        self._pending = OrderedDict.fromkeys(self._wanted)

    def next_change(self) -> Change[T] | None:
        """Return the next change, or None if the connection has all wanted subscriptions and no others."""
        while self._pending:
            name, _ = self._pending.popitem(last=False)
            if name not in self._wanted:
                ending = self._made.pop(name, None)
                if ending is not None:
                    return Change(name, ending)
            elif name not in self._made:
                return Change(name, None)
        return None

    def subscribed(self, name: str, subscription: T) -> None:
        """Record a subscription that the connection has made."""
        self._made[name] = subscription

    def of(self, names: Iterable[str]) -> list[T]:
        """Return the existing subscriptions among these names."""
        return [self._made[name] for name in names if name in self._made]

    def all(self) -> list[T]:
        """Return every subscription."""
        return list(self._made.values())
