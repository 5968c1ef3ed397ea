"""What an operation is given besides its request: the time, entropy, and the service it runs in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from openguild_proto.canonical.keys import EventSigner
from openguild_proto.limits import MAX_CHANNELS_PER_GUILD, MAX_GUILDS_JOINED, MAX_GUILDS_OWNED, MAX_INVITES_PER_GUILD
from openguild_proto.policy.connections import ConnectionLimiter
from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_proto.sessions.tokens import TokenAuthority


class Settings(msgspec.Struct, frozen=True, gc=False):
    """The configuration that operations read. Times in seconds unless the name says otherwise."""

    server_name: str = "localhost"
    version: str = "0"
    replay_window: int = 50  # PROTOCOL 8.3.2
    registration_enabled: bool = True
    access_ttl_secs: int = 43_200  # PROTOCOL 4.3.3: 12 h
    refresh_ttl_secs: int = 2_592_000  # PROTOCOL 4.6.6: 30 d
    refresh_grace_secs: int = 10  # a lost answer to a rotation may be asked again
    max_guilds_owned: int = MAX_GUILDS_OWNED  # per user
    max_guilds_joined: int = MAX_GUILDS_JOINED  # per user
    max_channels_per_guild: int = MAX_CHANNELS_PER_GUILD
    max_invites_per_guild: int = MAX_INVITES_PER_GUILD


@dataclass(slots=True)
class Service:
    """The long-lived, pure state of one server: settings, keys, token cache, limiters. One per process."""

    settings: Settings
    tokens: TokenAuthority
    signer: EventSigner | None  # None: local events are not signed (PROTOCOL 6.3.3)
    user_messages: SlidingWindow  # key: user id
    address_messages: SlidingWindow  # key: limit_key of the client's address
    user_repeats: SlidingWindow  # key: user id; posts that were stored before
    address_repeats: SlidingWindow  # key: limit_key of the client's address
    user_writes: SlidingWindow  # key: user id; every change but a message
    address_logins: SlidingWindow  # key: limit_key of the client's address; login and register
    account_logins: SlidingWindow  # key: limit_key of the client's address, and the username key
    address_refreshes: SlidingWindow  # key: limit_key of the client's address
    account_refreshes: SlidingWindow  # key: user id
    sockets: ConnectionLimiter


@dataclass(slots=True, frozen=True)
class Context:
    """`now`: monotonic seconds. `wall_ms`: UTC milliseconds. `entropy(n)`: n random bytes for ids and codes."""

    now: float
    wall_ms: int
    entropy: Callable[[int], bytes]
    service: Service
