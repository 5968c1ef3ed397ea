"""Every effect is performed exactly once in each store, or by the process, and gives what it says that it gives."""

from __future__ import annotations

import importlib
import pkgutil
import typing
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from openguild_proto import effects, memory
from openguild_proto.effects.base import Effect, StorageEffect
from openguild_proto.effects.performs import MARK, Performed
from openguild_runtime.effects import performer
from openguild_runtime.replica import runner
from openguild_runtime.storage import postgres

for module in pkgutil.iter_modules(effects.__path__, effects.__name__ + "."):
    importlib.import_module(module.name)


def subclasses(kind: type[Effect[Any]]) -> Iterator[type[Effect[Any]]]:
    for below in kind.__subclasses__():
        yield below
        yield from subclasses(below)


STORED = set(subclasses(StorageEffect))
OF_THE_PROCESS = set(subclasses(Effect)) - STORED - {StorageEffect}
REGISTRIES = {
    "memory": (memory.PERFORMERS, STORED),
    "postgres": (postgres.PERFORMERS, STORED),
    "process": (performer.PERFORMERS | runner.PERFORMERS, OF_THE_PROCESS),
}


@pytest.mark.parametrize(("performers", "wanted"), REGISTRIES.values(), ids=REGISTRIES)
def test_each_effect_has_one_performer(
    performers: dict[type[Effect[Any]], Performed], wanted: set[type[Effect[Any]]]
) -> None:
    assert {kind.__name__ for kind in performers} == {kind.__name__ for kind in wanted}


@pytest.mark.parametrize("package", [memory, postgres])
def test_each_marked_function_is_in_the_registry(package: Any) -> None:
    known = {performed.function for performed in package.PERFORMERS.values()}
    marked: set[Callable[..., Any]] = set()
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        values = vars(importlib.import_module(module.name)).values()
        marked |= {value for value in values if callable(value) and getattr(value, MARK, None) is not None}
    assert marked <= known


@pytest.mark.parametrize(("performers", "wanted"), REGISTRIES.values(), ids=REGISTRIES)
def test_a_performer_gives_what_its_effect_says(
    performers: dict[type[Effect[Any]], Performed], wanted: set[type[Effect[Any]]]
) -> None:
    for kind, performed in performers.items():
        (base,) = kind.__orig_bases__
        (result,) = typing.get_args(base)
        said = performed.function.__annotations__
        names = ("return", "effects" if "effects" in said else "effect")
        given, asked = (eval(said[name], performed.function.__globals__) for name in names)
        if "effects" in said:  # a result for each
            ((given,), (asked,)) = typing.get_args(given), typing.get_args(asked)
        assert (given if given is not None else type(None)) == result, kind.__name__
        assert asked is kind
