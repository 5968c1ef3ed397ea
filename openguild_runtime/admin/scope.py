"""The objects that commands of the admin socket use, and their refusals."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from openguild_proto.diagnosis.heavy_hitters import HeavyHitters
from openguild_proto.diagnosis.requests import RequestHistory
from openguild_proto.effects.process import Readiness
from openguild_runtime.admin.reload import LiveConfig
from openguild_runtime.federation.delivering import DeliveryRunner
from openguild_runtime.federation.peer_link import PeerLink
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.replica.runner import ReplicaRunner
from openguild_runtime.storage.base import Storage
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy

MAX_LINES = 1_000

Request = dict[str, Any]
Response = dict[str, Any]


class Refused(Exception):
    """A request is refused. The text is for the operator."""


class AdminScope(NamedTuple):
    """The parts of one replica that an operator may see and change."""

    live: LiveConfig
    replica: ReplicaRunner
    drain: Callable[[], None]  # drains the whole server; idempotent
    storage: Storage
    metrics: Metrics
    history: RequestHistory
    busy_users: HeavyHitters
    readiness: Callable[[], Awaitable[Readiness]]
    connections: Callable[[], int]  # the number of open connections
    sources: ClocksAndEntropy
    servers: PeerLink
    deliveries: DeliveryRunner


def limit_of(request: Request) -> int:
    """Return the requested number of lines. Raises Refused."""
    limit = request.get("limit", 20)
    if not isinstance(limit, int) or not 0 < limit <= MAX_LINES:
        raise Refused(f"limit: expected 1 to {MAX_LINES}")
    return limit


def user_of(request: Request) -> str | None:
    """Return the named user, or None. After `usernames.resolve_user`, it is their ID. Raises Refused."""
    user = request.get("user")
    if user is not None and not isinstance(user, str):
        raise Refused("user: expected a user name or id")
    return user
