"""The base class of effects, and the exceptions with which they fail.

An operation is a generator. `stored = yield from AppendEvent(...)` is typed, because `Effect[T].__iter__` returns T. The
driver performs the yielded effect and sends its result, or throws one of the exceptions below or a store's `Refusal`.
Storage effects are atomic.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, ClassVar, Generic, Literal, TypeAlias, TypeVar

import msgspec

T = TypeVar("T")


class StorageUnavailable(Exception):
    """Thrown into an operation when the store cannot be reached. The effect may have been done or not. The response is 503."""


class Overloaded(StorageUnavailable):
    """Thrown when the store is at a bound: the effect was not done. The response is 503."""


class Effect(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """Base of every effect; `T` is the type of its result."""

    def __iter__(self) -> Generator[Effect[Any], Any, T]:
        result: T = yield self
        return result


Operation: TypeAlias = Generator[Effect[Any], Any, T]
"""An operation that returns a T."""


class StorageEffect(Effect[T], Generic[T], frozen=True):
    """Base of the effects that the store performs (openguild_runtime/storage).

    A change has an `author`. The store checks the author's rights in the transaction of the change. If they do not suffice, or
    if the object does not exist, it raises `Refusal` (401, 403 or 404) and changes nothing.

    `divides_by`: set for effects on a hot path. Each of their statements names the logs or the user, and finds the data of one
    log in one partition (docs/scaling.md). `on_standby`: a read that a standby may answer. `turns_of`: the name of the field
    with the user in whose turns this read waits, because a user may ask for thousands of reads (PROTOCOL 9.2.11). None: the
    effect is rare or a change.
    """

    divides_by: ClassVar[Literal["log", "user"] | None] = None
    on_standby: ClassVar[bool] = False
    turns_of: ClassVar[str | None] = None

    @property
    def in_turns_of(self) -> str:
        """The user in whose turns this read waits, or ""."""
        return "" if self.turns_of is None else getattr(self, self.turns_of) or ""
