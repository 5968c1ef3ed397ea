"""A decorator that registers the function that performs an effect, and a function that collects them from modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, NamedTuple, TypeVar

from openguild_proto.effects.base import Effect
from openguild_proto.errors import LocalProtocolError

E = TypeVar("E", bound=Effect[Any])
Of = TypeVar("Of")
R = TypeVar("R")

MARK = "__performs__"


class Performed(NamedTuple):
    """A registered function. `mode`: the second argument of `performs`."""

    function: Callable[[Any, Any], Any]
    mode: Any


def performs(effect: type[E], mode: object = None) -> Callable[[Callable[[Of, E], R]], Callable[[Of, E], R]]:
    """Register the decorated function or method as the performer of `effect`."""

    def mark(function: Callable[[Of, E], R]) -> Callable[[Of, E], R]:
        setattr(function, MARK, (effect, mode))
        return function

    return mark


def performs_many(
    effect: type[E], mode: object
) -> Callable[[Callable[[Of, Sequence[E]], R]], Callable[[Of, Sequence[E]], R]]:
    """Register the decorated function as the performer of a batch of `effect`."""

    def mark(function: Callable[[Of, Sequence[E]], R]) -> Callable[[Of, Sequence[E]], R]:
        setattr(function, MARK, (effect, mode))
        return function

    return mark


def collect(*places: object) -> dict[type[Effect[Any]], Performed]:
    """Return the registered functions of modules or classes, by effect. Raises LocalProtocolError if an effect has two."""
    found: dict[type[Effect[Any]], Performed] = {}
    for place in places:
        for function in vars(place).values():
            if not isinstance(function, FunctionType):
                continue  # reading an attribute would initialise a lazy object such as a logger
            effect, mode = getattr(function, MARK, (None, None))
            if effect is None:
                continue
            if effect in found and found[effect].function is not function:
                raise LocalProtocolError(f"two performers of {effect.__name__}")
            found[effect] = Performed(function, mode)
    return found
