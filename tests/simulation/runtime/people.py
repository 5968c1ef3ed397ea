"""The accounts, stored before the faults begin, and the events that each of them must get."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from openguild_proto.client import Notified, Session
from openguild_proto.sessions.refresh import hash_refresh_token
from openguild_runtime.client import ApiError, Client, Subscription
from tests.support.world import PASSWORD, START_MS, World, decoded

DEVICE = "d"


class _Told(msgspec.Struct):
    kind: str
    channel_id: str = ""
    sequence: int = 0


class Watch:
    """A notification stream. What one connection reports of a channel follows its log; the next connection starts again."""

    def __init__(self) -> None:
        self._heads: dict[str, int] | None = None  # the channels' heads at the opening of the connection, if any
        self._told: dict[str, int] = {}
        self.count = 0

    def opened(self, heads: dict[str, int]) -> None:
        self._heads, self._told = heads, {}

    def cut(self) -> None:
        self._heads = None

    def take(self, notification: Notified) -> str | None:
        """Check a notification. Return the violation, if any."""
        told = msgspec.json.decode(notification.payload, type=_Told)
        if told.kind != "channel_message":
            return None
        self.count += 1
        last = self._told.get(told.channel_id, told.sequence - 1)
        self._told[told.channel_id] = told.sequence
        return None if told.sequence == last + 1 else f"was told of {told.sequence} after {last} in {told.channel_id}"

    def has_all(self, heads: dict[str, int]) -> bool:
        """Return whether it is open and has reported everything since it was opened."""
        return self._heads is not None and all(
            self._told.get(channel_id, self._heads[channel_id]) >= head for channel_id, head in heads.items()
        )


@dataclass
class Account:
    """A user name, which may log in again, and the client that is logged in."""

    name: str
    client: Client

    def return_to(self, world: World, refused: ApiError, now: float) -> str | None:
        """Log in again when the session has ended. Return the violation if it had no reason to end.

        The answer to a refresh may be lost, and a refresh token is accepted once more, within ten seconds (PROTOCOL 4.6.4). So a
        session may end only if the client does not know its newest token.
        """
        session = self.client.session
        assert session is not None
        presented = hash_refresh_token(session.refresh_token) or b""
        family = world.tables._state.families[world.tables._state.refresh_tokens[presented][0]]
        if refused.status != 401 or (family.current_hash == presented and family.revoked):
            return f"{self.name} was refused: {refused}"
        if family.revoked:  # else another task of this client has logged in already
            self.client.session = log_in(world, self.name, family.device_id, now)
        return None


@dataclass
class Person:
    number: int
    account: Account
    channel_id: str
    acknowledged: dict[tuple[str, int], str] = field(default_factory=dict)  # (channel, sequence) -> text
    attempted: set[str] = field(default_factory=set)
    received: list[tuple[int, str]] = field(default_factory=list)
    subscription: Subscription | None = None
    watch: Watch | None = None
    reconnects: int = 0


def register(world: World, name: str) -> Session:
    """Create an account and its first session."""
    assert world.ask("POST", "/users/register", {"username": name, "password": PASSWORD}).status == 201
    return log_in(world, name)


def log_in(world: World, name: str, device: str = DEVICE, now: float = 0.0) -> Session:
    """Create a session at second `now` of the run, independently of the replicas."""
    world.wall_ms = START_MS + int(now * 1_000)
    body = {"identifier": name, "secret": PASSWORD, "device": {"device_id": device}}
    return Session.of(world.ask("POST", "/sessions/login", body).body, now)


def user_id(world: World, session: Session) -> str:
    return str(decoded(world.ask("GET", "/users/me", token=session.access_token))["user_id"])
