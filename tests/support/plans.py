"""The plans that PostgreSQL executes, including statements within functions, and the tables that each of them touches."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import asyncpg

from openguild_runtime.embedded import EmbeddedPostgres
from openguild_runtime.embedded.server import ROLE

# `log_min_duration` stays off except in sessions that set it, which ROLE may.
EXPLAIN = {
    "shared_preload_libraries": "auto_explain",
    "auto_explain.log_nested_statements": "on",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_format": "json",
    "auto_explain.log_level": "notice",
}
MINIMUM = "auto_explain.log_min_duration"


class ExplainingPostgres(EmbeddedPostgres):
    """A PostgreSQL whose test role may enable auto_explain."""

    def _run_statements(self, directory: Any, statements: str) -> None:
        super()._run_statements(directory, f"{statements}GRANT SET ON PARAMETER {MINIMUM} TO {ROLE}\n")


class Touched(NamedTuple):
    """A table that a statement read or wrote. `condition`: how it found the rows; empty: it read all of them."""

    table: str
    node: str
    condition: str


class Statement(NamedTuple):
    """An executed statement, and the tables that its plan touched."""

    text: str
    touched: tuple[Touched, ...]
    locked: frozenset[str]  # tables whose rows it locks or writes


class PlanReader:
    """Collects the plans of a connection. With `generic`, prepared statements are planned without their values.

    The planner avoids scans and hashes of whole tables if it can: whether they are cheaper for the few rows of a test depends on
    what ANALYZE sampled.
    """

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self.connection = connection
        self._plans: list[dict[str, Any]] = []

    @classmethod
    @asynccontextmanager
    async def connected(cls, url: str, *, generic: bool) -> AsyncIterator[PlanReader]:
        mode = "force_generic_plan" if generic else "force_custom_plan"
        settings = {MINIMUM: "0", "plan_cache_mode": mode, "jit": "off", "lock_timeout": "300ms"}
        settings |= dict.fromkeys(("enable_seqscan", "enable_hashjoin", "enable_mergejoin"), "off")
        reader = cls(await asyncpg.connect(url, server_settings=settings))
        reader.connection.add_log_listener(reader._heard)
        try:
            yield reader
        finally:
            await reader.connection.close()

    def _heard(self, _connection: object, message: Any) -> None:
        _, found, plan = message.message.partition("plan:\n")
        if found:
            self._plans.append(json.loads(plan))

    async def taken(self) -> list[Statement]:
        """Return the statements since the last call."""
        await self.connection.execute("SELECT 'the end'")  # notices of earlier statements arrive before its answer
        plans, self._plans = self._plans, []
        return [_read(plan) for plan in plans if "the end" not in plan["Query Text"]]


def _read(plan: dict[str, Any]) -> Statement:
    nodes = list(_nodes(plan["Plan"]))
    aliases = {node.get("Alias"): node["Relation Name"] for node in nodes if "Relation Name" in node}
    touched = tuple(_touched(node) for node in nodes if "Relation Name" in node and node["Node Type"] != "ModifyTable")
    locked = {node["Relation Name"] for node in nodes if node["Node Type"] == "ModifyTable"}
    if any(node["Node Type"] == "LockRows" for node in nodes):
        locked |= set(aliases.values())
    return Statement(plan["Query Text"], touched, frozenset(locked))


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the executed nodes of the plan."""
    if node.get("Actual Loops", 1) == 0:
        return
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def _touched(node: dict[str, Any]) -> Touched:
    conditions: Sequence[Any] = (node.get("Index Cond", ""), node.get("Recheck Cond", ""), node.get("TID Cond", ""))
    return Touched(node["Relation Name"], node["Node Type"], " ".join(str(each) for each in conditions if each))
