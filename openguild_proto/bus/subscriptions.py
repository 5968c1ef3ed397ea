"""The subjects that a bus is to hear, and those that its connection has: subscribing takes time, and wishes change meanwhile."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Change(NamedTuple, Generic[T]):
    """Subscribe to the subject, and then call `made`; or end the subscription."""

    subject: str
    ending: T | None


class Subscriptions(Generic[T]):
    """`T`: a subscription of the connection. `always`: subjects that are wanted whatever happens.

    Take `next_change` and carry it out, until there is none; one at a time, so that the changes of a subject keep their order.
    A subscription that fails is made with the next connection.
    """

    def __init__(self, always: Iterable[str] = ()) -> None:
        self._wanted = dict.fromkeys(always)
        self._made: dict[str, T] = {}
        self._pending: OrderedDict[str, None] = (
            OrderedDict()
        )  # subjects that may have to change; a dict is slow to empty from its front

    def want(self, subjects: Iterable[str]) -> None:
        """These are to be heard. Idempotent."""
        for subject in subjects:
            self._wanted[subject] = self._pending[subject] = None

    def unwant(self, subjects: Iterable[str]) -> None:
        """These are no longer to be heard. Idempotent."""
        for subject in subjects:
            self._wanted.pop(subject, None)
            self._pending[subject] = None

    def reconnected(self) -> None:
        """There is a new connection, without subscriptions."""
        self._made.clear()
        self._pending = OrderedDict.fromkeys(self._wanted)

    def next_change(self) -> Change[T] | None:
        """Return what is to be done next; None: every wanted subject has its subscription, and no other has one."""
        while self._pending:
            subject, _ = self._pending.popitem(last=False)
            if subject not in self._wanted:
                ending = self._made.pop(subject, None)
                if ending is not None:
                    return Change(subject, ending)
            elif subject not in self._made:
                return Change(subject, None)
        return None

    def made(self, subject: str, subscription: T) -> None:
        """The connection has subscribed to the subject."""
        self._made[subject] = subscription

    def of(self, subjects: Iterable[str]) -> list[T]:
        """Return the subscriptions that there are of these subjects."""
        return [self._made[subject] for subject in subjects if subject in self._made]

    def all(self) -> list[T]:
        """Return every subscription."""
        return list(self._made.values())
