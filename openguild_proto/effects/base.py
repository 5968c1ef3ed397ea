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
    """Thrown into an operation if the store cannot be reached. The effect may or may not have happened. The response is 503."""


class Overloaded(StorageUnavailable):
    """Thrown into an operation if the store is at a limit. Nothing was done. The response is also 503."""


class Effect(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """Base of every effect; `T` is the type of its result."""

    def __iter__(self) -> Generator[Effect[Any], Any, T]:
        result: T = yield self
        return result


Operation: TypeAlias = Generator[Effect[Any], Any, T]
"""An operation that returns a T."""


class StorageEffect(Effect[T], Generic[T], frozen=True):
    """Base of the effects that the store performs (openguild_runtime/storage).

    A change has an `author`. The store checks their right to make it in the transaction of the change. If they lack it, or if
    there is nothing to change, the store raises `Refusal` (401, 403 or 404) and changes nothing.

    - `divides_by`: set for effects on a hot path. Each of their statements names its logs or its user, and reads one partition per
      log (docs/scaling.md). None: the effect is rare.
    - `on_standby`: a standby may answer this read.
    - `turns_of`: the attribute with the user in whose turns it is read, because a user may send thousands (PROTOCOL 9.2.11).
      None: the effect is rare, or a change.
    """

    divides_by: ClassVar[Literal["log", "user"] | None] = None
    on_standby: ClassVar[bool] = False
    turns_of: ClassVar[str | None] = None

    @property
    def in_turns_of(self) -> str:
        """The user in whose turns it is read, or "" for none."""
        return "" if self.turns_of is None else getattr(self, self.turns_of) or ""
