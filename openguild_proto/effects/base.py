"""The base of all effects, how they are driven, and how they fail.

An operation is a generator: `stored = yield from AppendEvent(...)` is typed, because `Effect[T].__iter__` returns T.
Whoever drives the operation performs the yielded effect and sends the result back, or throws one of the
exceptions below, or the `Refusal` of a store. Storage effects are atomic: all of it is stored, or none.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

T = TypeVar("T")


class StorageUnavailable(Exception):
    """Thrown into an operation whose effect could not reach the store; its fate may be unknown. Answered with 503."""


class Overloaded(StorageUnavailable):
    """The store is there, but at a bound: the effect was refused and nothing was done. Answered with 503, too."""


class Effect(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """Base of every effect; `T` is the type of its result."""

    def __iter__(self) -> Generator[Effect[Any], Any, T]:
        result: T = yield self
        return result


Operation: TypeAlias = Generator[Effect[Any], Any, T]
"""An operation that ends with a T."""


class StorageEffect(Effect[T], Generic[T], frozen=True):
    """Performed by the store (openguild_runtime/storage).

    A change that somebody makes has an `author`. The store decides again in the change's transaction whether they may
    make it, and otherwise, or where there is nothing to change, raises `Refusal` (401, 403 or 404) and changes nothing.
    """
