"""The response of `/ready` (PROTOCOL 11.1), and the log line when the state of the store changes."""

from __future__ import annotations

from collections.abc import Sequence

from openguild_proto.effects.process import ComponentState, Readiness, StorageHealth
from openguild_proto.policy.lifecycle import Lifecycle
from openguild_proto.policy.standbys import StandbyState

NOTHING_KNOWN = StorageHealth(database=False, migrations=False, writable=False)
NO_RESPONSE = StorageHealth(database=False, migrations=False, writable=False, cause="timeout")

MEMORY = ComponentState("database", "configured", "memory storage: everything is lost at a restart")
MIGRATIONS_UNKNOWN = ComponentState("migrations", "pending", "unknown while the database is not reachable")
DRAINING = ComponentState("drain", "pending", "draining")
NOT_DRAINING = ComponentState("drain", "configured", "not draining")
DESCRIPTORS_SHORT = ComponentState("descriptors", "error", "ran out recently: connections wait or are refused")


def describe_readiness(
    health: StorageHealth,
    bus: ComponentState,
    lifecycle: Lifecycle,
    *,
    is_memory: bool,
    descriptors_short: bool,
    uptime_seconds: int,
    standbys: Sequence[StandbyState | None] = (),
) -> Readiness:
    """Return the state now. `standbys`: the state of each; None: not checked yet.

    Degraded: it serves, but the bus has a problem, a standby is not used, or descriptors are short.
    """
    if lifecycle.is_draining:
        status = "draining"
    elif not (health.usable and lifecycle.has_started):
        status = "unavailable"
    elif bus.status == "error" or descriptors_short or any(state is not StandbyState.SERVING for state in standbys):
        status = "degraded"
    else:
        status = "ready"
    components = (
        MEMORY if is_memory else _database(health),
        _migrations(health),
        bus,
        *((_standbys(standbys),) if standbys else ()),
        DRAINING if lifecycle.is_draining else NOT_DRAINING,
        *((DESCRIPTORS_SHORT,) if descriptors_short else ()),
    )
    return Readiness(status=status, uptime_seconds=uptime_seconds, components=components)


def describe_bus(name: str, title: str, problem: str | None) -> ComponentState:
    """Return the component of a bus. `problem` continues a sentence that begins with `title`; None: no problem."""
    return _component(name, problem is None, "connection established", f"{title} {problem}")


def _database(health: StorageHealth) -> ComponentState:
    problem = "does not accept writes" if health.database else "not reachable"
    if health.cause is not None:
        problem = f"{problem} ({health.cause})"
    return _component("database", health.database and health.writable, "connection established", problem)


def _migrations(health: StorageHealth) -> ComponentState:
    if not health.database:
        return MIGRATIONS_UNKNOWN
    return _component("migrations", health.migrations, "schema is current", "schema is not current")


def _standbys(states: Sequence[StandbyState | None]) -> ComponentState:
    left_out = [(number, state) for number, state in enumerate(states) if state is not StandbyState.SERVING]
    which = ", ".join(f"{number} is {state.name if state else 'not checked yet'}" for number, state in left_out)
    problem = f"{len(left_out)} of {len(states)} left out: {which}"
    return _component("standbys", not left_out, f"{len(states)} serve reads", problem)


def _component(name: str, good: bool, yes: str, no: str) -> ComponentState:
    return ComponentState(name, "configured" if good else "error", yes if good else no)


def describe_change(before: StorageHealth, now: StorageHealth) -> tuple[str, str] | None:
    """Return the level and text of the log line for a change of the store's health, or None."""
    if (now.database, now.writable, now.cause) == (before.database, before.writable, before.cause):
        return None
    if not now.database:
        return "warning", "database not reachable"
    if not now.writable:
        return "warning", "database does not accept writes"
    if not before.database:
        return "info", "database reachable"
    return ("info", "database accepts writes again") if not before.writable else None
