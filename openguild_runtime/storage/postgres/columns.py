"""A record's columns, taken from its fields, so that no list of them has to be kept beside it.

A field `x_ms` stands in the column `x` as timestamptz, a field `x_id` may be a uuid; every other column has the field's name.
Columns are selected by name: a later release's column changes no prepared statement.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from openguild_proto.records import Record
from openguild_runtime.storage.postgres.values import Row, to_millis_or_none

R = TypeVar("R", bound=Record)


class Columns(Generic[R]):
    """Between rows of a table and records of `kind`; `without`: fields that are not stored."""

    def __init__(self, kind: type[R], *, without: tuple[str, ...] = ()) -> None:
        self._kind = kind
        fields = [name for name in kind.__struct_fields__ if name not in without]
        self.names = tuple(name.removesuffix("_ms") for name in fields)
        self._read = tuple((name.removesuffix("_ms"), _conversion(name)) for name in fields)

    def of(self, table: str) -> str:
        """For SELECT, of a table by its alias."""
        return ", ".join(f"{table}.{name}" for name in self.names)

    def __str__(self) -> str:
        return ", ".join(self.names)

    def record(self, row: Row) -> R:
        """The record that stands in `row`, which may have other columns, too."""
        return self._kind(*[row[name] if convert is None else convert(row[name]) for name, convert in self._read])


def _conversion(field: str) -> Callable[[Any], Any] | None:
    if field.endswith("_ms"):
        return to_millis_or_none
    return str if field.endswith("_id") else None
