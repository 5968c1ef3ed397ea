"""Derives the columns of a record from its fields.

A field `x_ms` is the column `x` of type timestamptz, and a field `x_id` may be a uuid. Columns have the names of the fields
otherwise. They are selected by name, so that columns of later releases do not affect prepared statements.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any, Generic, TypeVar, get_type_hints

from openguild_proto.records import Record
from openguild_runtime.storage.postgres.values import Row, to_millis, to_millis_or_none

R = TypeVar("R", bound=Record)


class Columns(Generic[R]):
    """Converts rows of a table to records of `kind`."""

    def __init__(self, kind: type[R]) -> None:
        self._kind = kind
        self.names = tuple(name.removesuffix("_ms") for name in kind.__struct_fields__)
        self._values: Callable[[Row], tuple[Any, ...]] = itemgetter(*self.names)
        conversions = [_conversion(name, hint) for name, hint in get_type_hints(kind).items()]
        self._conversions = [(place, convert) for place, convert in enumerate(conversions) if convert is not None]

    def of(self, table: str) -> str:
        """Return the columns for SELECT, qualified with the alias `table`."""
        return ", ".join(f"{table}.{name}" for name in self.names)

    def __str__(self) -> str:
        return ", ".join(self.names)

    def record(self, row: Row) -> R:
        """Return the record of `row`, which may have more columns."""
        values = [*self._values(row)]
        for place, convert in self._conversions:
            values[place] = convert(values[place])
        return self._kind(*values)


def _conversion(field: str, hint: Any) -> Callable[[Any], Any] | None:
    if field.endswith("_ms"):
        return to_millis if hint is int else to_millis_or_none
    return str if field.endswith("_id") else None
