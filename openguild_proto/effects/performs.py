"""Marks the function that performs an effect, where the function stands, and collects them for a performer."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, NamedTuple, TypeVar

from openguild_proto.effects.base import Effect
from openguild_proto.errors import LocalProtocolError

E = TypeVar("E", bound=Effect[Any])
Of = TypeVar("Of")
R = TypeVar("R")

MARK = "__performs__"


class Performed(NamedTuple):
    """One line of a performer's registry. `mode`: what `performs` was given beside the effect."""

    function: Callable[[Any, Any], Any]
    mode: Any


def performs(effect: type[E], mode: object = None) -> Callable[[Callable[[Of, E], R]], Callable[[Of, E], R]]:
    """Say that the decorated function or method performs `effect`: it is given the performer's own thing and the effect."""

    def mark(function: Callable[[Of, E], R]) -> Callable[[Of, E], R]:
        setattr(function, MARK, (effect, mode))
        return function

    return mark


def collect(*places: object) -> dict[type[Effect[Any]], Performed]:
    """The performers that the modules or classes `places` hold. Raises LocalProtocolError for an effect that two perform."""
    found: dict[type[Effect[Any]], Performed] = {}
    for place in places:
        for function in vars(place).values():
            if not isinstance(function, FunctionType):
                continue  # not asked for attributes: a lazy object, such as a logger, would come to life
            effect, mode = getattr(function, MARK, (None, None))
            if effect is None:
                continue
            if effect in found and found[effect].function is not function:
                raise LocalProtocolError(f"two performers of {effect.__name__}")
            found[effect] = Performed(function, mode)
    return found
