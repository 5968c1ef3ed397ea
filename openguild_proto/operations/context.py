"""The context of an operation: time, entropy, and the long-lived state of the server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import msgspec

from openguild_proto.canonical.keys import EventSigner
from openguild_proto.errors import ErrorCode, Refusal
from openguild_proto.federation.mirrored import MirroredChannels
from openguild_proto.federation.peers import KnownPeers
from openguild_proto.federation.policy import FederationPolicy
from openguild_proto.federation.upkeep import Upkeep
from openguild_proto.limits import (
    MAX_DELIVERIES_OF_SERVER,
    MAX_DELIVERIES_TAKEN,
    MAX_REPEATS_PER_MESSAGE,
    MAX_SNAPSHOTS_OF_GUILD,
    RENEWAL_SECS,
)
from openguild_proto.policy.quotas import StreamLimiter
from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_proto.policy.response_times import ResponseTimes
from openguild_proto.policy.server_slots import ServerSlots
from openguild_proto.policy.token_bucket import TokenBucket
from openguild_proto.sessions.tokens import TokenAuthority
from openguild_proto.settings.sections import (
    GuildSettings,
    MessagingSettings,
    PresenceSettings,
    RegistrationSettings,
    SearchSettings,
    SessionSettings,
    WebSocketSettings,
)


class Settings(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The configuration of the core, by section."""

    server_name: str = "localhost"
    version: str = "0"
    refresh_grace_secs: int = 60  # for repeating a refresh after a lost response: as long as a client retries
    messaging: MessagingSettings = MessagingSettings()
    websocket: WebSocketSettings = WebSocketSettings()
    session: SessionSettings = SessionSettings()
    guilds: GuildSettings = GuildSettings()
    registration: RegistrationSettings = RegistrationSettings()
    search: SearchSettings = SearchSettings()
    presence: PresenceSettings = PresenceSettings()
    federation: FederationPolicy = FederationPolicy()


class Policy(NamedTuple):
    """A quota policy of a limit: its name in the headers, the part of a Service that counts it, and whether it is per address."""

    name: str
    window: str  # attribute of Service: a window, or the limiter of streams
    of_address: bool = False  # by address, else by account


class Limit(Enum):
    """A rate limit of routes: its text, its 429 codes, the policies that headers show, and the part that counts.

    `by_dispatch`: the window in which dispatch counts the account. None: the operation counts, because it depends on the request.
    Headers do not show policies that depend on the body, those of one account's logins and refreshes, or policies that
    only a faulty client reaches.
    """

    WRITES = ("changes of an account", (ErrorCode.WRITE_RATE_LIMIT,), (Policy("writes", "user_writes"),), "user_writes")
    MESSAGES = (
        "messages of an account and of an address",
        (ErrorCode.MESSAGE_RATE_LIMIT, ErrorCode.IP_RATE_LIMIT),
        (Policy("messages", "user_messages"), Policy("messages-of-address", "address_messages", of_address=True)),
    )
    READS = (
        "moves of the read positions of an account", (ErrorCode.READ_RATE_LIMIT,), (Policy("reads", "user_reads"),), "user_reads",
    )  # fmt: skip
    TYPING = (
        "signals of typing of an account", (ErrorCode.TYPING_RATE_LIMIT,), (Policy("typing", "user_typing"),), "user_typing",
    )  # fmt: skip
    SEARCHES = (
        "searches of an account", (ErrorCode.SEARCH_RATE_LIMIT,), (Policy("searches", "user_searches"),), "user_searches",
    )  # fmt: skip
    QUERIES = ("reads of an account", (ErrorCode.QUERY_RATE_LIMIT,), (), "user_queries")
    OWNER_READS = ("reads of an account at other servers", (ErrorCode.OWNER_READ_RATE_LIMIT,), ())
    ATTEMPTS = (
        "attempts of an address and on an account",
        (ErrorCode.LOGIN_RATE_LIMIT,),
        (Policy("attempts-of-address", "address_logins", of_address=True),),
    )
    REFRESHES = (
        "refreshes of an address and of an account",
        (ErrorCode.REFRESH_RATE_LIMIT,),
        (Policy("refreshes-of-address", "address_refreshes", of_address=True),),
    )
    SERVERS = ("requests of another server", (ErrorCode.SERVER_RATE_LIMIT,), ())
    STREAMS = (
        "open streams of an account and of an address",
        (ErrorCode.CONNECTION_LIMIT,),
        (Policy("streams", "sockets"), Policy("streams-of-address", "sockets", of_address=True)),
    )

    def __init__(
        self, text: str, codes: tuple[ErrorCode, ...], policies: tuple[Policy, ...], by_dispatch: str | None = None
    ) -> None:
        self.text = text
        self.codes = codes
        self.policies = policies
        self.by_dispatch = by_dispatch

    def refusal(self, wait_secs: float, code: ErrorCode | None = None) -> Refusal:
        """Return the error 429. `code`: one of `codes`, by default the first."""
        return Refusal(code or self.codes[0], limit=self.name.lower(), wait_secs=wait_secs)


SHARED = {
    "user": "user_messages",
    "address": "address_messages",
    "writes": "user_writes",
    "reads": "user_reads",
    "searches": "user_searches",
    "server_requests": "peer_requests",
    "server_megabytes": "peer_megabytes",
    "server_proposals": "peer_proposals",
    "server_joins": "peer_joins",
    "server_invites": "peer_invites",
    "mirror_renewals": "mirror_renewals",
}
"""The windows that replicas share, by name on the bus."""


def rates(settings: Settings) -> dict[str, tuple[int, float]]:
    """Return the limit and the seconds of each window of a Service, by attribute."""
    messages, session, guilds, search = settings.messaging, settings.session, settings.guilds, settings.search
    servers = settings.federation.budgets
    of_user, of_address = messages.max_messages_per_user_per_window, messages.max_messages_per_ip_per_window
    return {
        "user_messages": (of_user, messages.rate_limit_window_secs),
        "address_messages": (of_address, messages.rate_limit_window_secs),
        "user_repeats": (of_user * MAX_REPEATS_PER_MESSAGE, messages.rate_limit_window_secs),
        "address_repeats": (of_address * MAX_REPEATS_PER_MESSAGE, messages.rate_limit_window_secs),
        "user_writes": (guilds.max_writes_per_user_per_window, guilds.write_window_secs),
        "user_reads": (messages.max_reads_per_user_per_window, messages.rate_limit_window_secs),
        "user_queries": (messages.max_queries_per_user_per_window, messages.query_window_secs),
        "user_typing": (messages.max_typing_per_user_per_window, messages.rate_limit_window_secs),
        "user_searches": (search.max_searches_per_user_per_window, search.window_secs),
        "user_owner_reads": (servers.max_owner_reads_per_user_per_window, servers.window_secs),
        "address_logins": (session.max_logins_per_address_per_window, session.login_window_secs),
        "account_logins": (session.max_logins_per_account_per_window, session.login_window_secs),
        "address_refreshes": (session.max_refreshes_per_address_per_window, session.login_window_secs),
        "account_refreshes": (session.max_refreshes_per_account_per_window, session.login_window_secs),
        "peer_requests": (servers.max_requests_per_server_per_window, servers.window_secs),
        "peer_megabytes": (servers.max_megabytes_per_server_per_window, servers.window_secs),
        "peer_proposals": (servers.max_proposals_per_server_per_window, servers.window_secs),
        "peer_joins": (servers.max_joins_per_server_per_window, servers.window_secs),
        "peer_invites": (servers.max_invites_per_server_per_window, servers.window_secs),
        "mirror_renewals": (1, RENEWAL_SECS),
        "peer_snapshots": (MAX_SNAPSHOTS_OF_GUILD, RENEWAL_SECS),
        "peer_discoveries": (servers.max_discoveries_per_window, servers.window_secs),
        "address_discoveries": (max(1, servers.max_discoveries_per_window // 4), servers.window_secs),
    }


@dataclass(slots=True)
class Service:
    """The long-lived state of a process: settings, keys, token cache, limiters. No I/O."""

    settings: Settings
    tokens: TokenAuthority
    signer: EventSigner | None  # None: local events are not signed (PROTOCOL 6.3.3)
    user_messages: SlidingWindow  # key: user id
    address_messages: SlidingWindow  # key: limit_key of the client's address
    user_repeats: SlidingWindow  # key: user id; repeated posts
    address_repeats: SlidingWindow  # key: limit_key of the client's address; repeated posts
    user_writes: SlidingWindow  # key: user id; changes other than messages
    user_reads: SlidingWindow  # key: user id; read positions
    user_queries: TokenBucket  # key: user id; reads of stored data
    user_typing: SlidingWindow  # key: user id
    user_searches: SlidingWindow  # key: user id
    user_owner_reads: SlidingWindow  # key: user id; reads forwarded to the owner of a mirrored guild
    address_logins: SlidingWindow  # key: limit_key of the client's address; login and register
    account_logins: SlidingWindow  # key: limit_key of the client's address, and the username key
    address_refreshes: SlidingWindow  # key: limit_key of the client's address
    account_refreshes: SlidingWindow  # key: user id
    peer_requests: SlidingWindow  # key: server
    peer_megabytes: SlidingWindow  # key: server; in the bodies of its requests
    peer_proposals: SlidingWindow  # key: server
    peer_joins: SlidingWindow  # key: server
    peer_invites: SlidingWindow  # key: server
    mirror_renewals: SlidingWindow  # key: owner and guild id; restarts of mirrors because of the owner's new epoch
    peer_snapshots: SlidingWindow  # key: server and guild id
    peer_discoveries: SlidingWindow  # key: ""; all servers together
    address_discoveries: SlidingWindow  # key: limit_key of the client's address
    sockets: StreamLimiter
    peers: KnownPeers
    mirrored: MirroredChannels
    upkeep: Upkeep
    response_times: ResponseTimes
    deliveries: ServerSlots[None]  # being processed
    retired_signers: tuple[EventSigner, ...] = ()  # with replaced keys; they also sign the keys document

    @classmethod
    def create(
        cls,
        settings: Settings,
        tokens: TokenAuthority,
        *,
        signer: EventSigner | None = None,
        retired_signers: tuple[EventSigner, ...] = (),
        workers: int = 1,
    ) -> Service:
        """Create the state from the settings. `workers` share the total of streams."""
        websocket = settings.websocket
        sockets = StreamLimiter(
            -(-websocket.max_connections // workers),
            websocket.max_connections_per_user,
            websocket.max_connections_per_address,
        )
        response_times = ResponseTimes()
        windows: dict[str, Any] = {name: _counter(name)(limit, secs) for name, (limit, secs) in rates(settings).items()}
        return cls(
            settings=settings,
            tokens=tokens,
            signer=signer,
            retired_signers=retired_signers,
            sockets=sockets,
            peers=KnownPeers(),
            mirrored=MirroredChannels(),
            upkeep=Upkeep(),
            response_times=response_times,
            deliveries=ServerSlots(MAX_DELIVERIES_OF_SERVER, MAX_DELIVERIES_TAKEN, response_times),
            **windows,
        )

    @property
    def signers(self) -> tuple[EventSigner, ...]:
        """The keys of this server with a private half here, the current one first."""
        return (self.signer, *self.retired_signers) if self.signer is not None else ()

    def shared_windows(self) -> dict[str, SlidingWindow]:
        """Return the windows that replicas share, by name on the bus."""
        return {name: getattr(self, window) for name, window in SHARED.items()}

    def apply(self, settings: Settings) -> None:
        """Replace the settings. Earlier admissions still count."""
        self.settings = settings
        for name, (limit, secs) in rates(settings).items():
            window: SlidingWindow | TokenBucket = getattr(self, name)
            window.change(limit, secs)


def _counter(name: str) -> type[SlidingWindow | TokenBucket]:
    return TokenBucket if name == "user_queries" else SlidingWindow  # avoids storing thousands of times per user


class Context(msgspec.Struct, frozen=True, gc=False):
    """The context of one operation.

    `now`: monotonic seconds. `wall_ms`: UTC milliseconds. `entropy(n)`: n random bytes for ids and codes.
    """

    now: float
    wall_ms: int
    entropy: Callable[[int], bytes]
    service: Service
