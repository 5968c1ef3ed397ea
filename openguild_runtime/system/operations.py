"""Runs an operation outside of a request, without a deadline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from openguild_proto.effects.base import Effect, Operation

T = TypeVar("T")


async def drive(operation: Operation[T], perform: Callable[[Any], Awaitable[Any]]) -> T:
    """Perform the effects of `operation` and return its result. Failures are thrown into it; uncaught ones are raised."""
    try:
        effect: Effect[Any] = next(operation)
        while True:
            try:
                result = await perform(effect)
            except Exception as failure:  # the operation decides how to handle it
                effect = operation.throw(failure)
            else:
                effect = operation.send(result)
    except StopIteration as end:
        returned: T = end.value
        return returned
    finally:
        operation.close()
