"""The actions that a gateway socket requests from its owner, as data (PROTOCOL 15)."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from openguild_proto.gateway.close_codes import GatewayClose
from openguild_proto.gateway.feeds import Feed
from openguild_proto.gateway.frames import Ready
from openguild_proto.http.message import Request


class Action(msgspec.Struct, frozen=True):
    """Base of all actions. `number`: to pass back with the answer."""


class Authenticate(Action, frozen=True):
    """Check the token; answer with `authenticated`, `auth_refused` or `auth_unchecked`.

    `renews`: whether the socket already has a token. If so, `ready` and its guilds are not sent to the client again.
    """

    number: int
    token: str
    renews: bool = False


class CountReads(Action, frozen=True):
    """Count `reads` against the user's limit; answer with `reads_counted` (PROTOCOL 9.2.10)."""

    number: int
    reads: int


class Subscribe(Action, frozen=True):
    """Check that the user may read these logs, and open their feeds; answer each with `subscribed` or `sub_refused`.

    For each log answered with `subscribed`, the caller keeps what it holds for the feed until an `Unsubscribe` of that feed.
    """

    number: int
    logs: tuple[str, ...]


class Unsubscribe(Action, frozen=True):
    """Undo one `subscribed`."""

    feed: Feed


class ReadPage(Action, frozen=True):
    """Read up to `limit` events of the log after `after`; answer with `page`."""

    feed: Feed
    after: int
    limit: int


class Run(Action, frozen=True):
    """Dispatch the request as if it had come over HTTP; answer with `answered`."""

    number: int
    request: Request


class Write(Action, frozen=True):
    """Messages are queued: call `next_write` while the socket accepts bytes."""


class Close(Action, frozen=True):
    """Write what `next_write` returns, then close the WebSocket; call `left` when the socket is closed."""

    code: GatewayClose
    reason: str


AnyAction: TypeAlias = Authenticate | CountReads | Subscribe | Unsubscribe | ReadPage | Run | Write | Close


class Grant(msgspec.Struct, frozen=True):
    """The result of a valid token. `ends_at`: monotonic seconds at which the token expires."""

    ready: Ready
    ends_at: float
