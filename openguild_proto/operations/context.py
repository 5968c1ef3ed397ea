"""The context of an operation: time, entropy, and the long-lived state of the server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import msgspec

from openguild_proto.canonical.keys import EventSigner
from openguild_proto.errors import ErrorCode
from openguild_proto.limits import MAX_REPEATS_PER_MESSAGE
from openguild_proto.policy.quotas import StreamLimiter
from openguild_proto.policy.ratelimit import SlidingWindow
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
    """The configuration that operations read, by section."""

    server_name: str = "localhost"
    version: str = "0"
    refresh_grace_secs: int = 10  # for repeating a refresh whose response was lost
    messaging: MessagingSettings = MessagingSettings()
    websocket: WebSocketSettings = WebSocketSettings()
    session: SessionSettings = SessionSettings()
    guilds: GuildSettings = GuildSettings()
    registration: RegistrationSettings = RegistrationSettings()
    search: SearchSettings = SearchSettings()
    presence: PresenceSettings = PresenceSettings()


class Limit(Enum):
    """A rate limit of routes: its text, its 429 codes, and the window in which dispatch counts the account.

    Without a window the operation counts, because the count depends on the request.
    """

    WRITES = ("changes of an account", (ErrorCode.WRITE_RATE_LIMIT,), "user_writes")
    MESSAGES = ("messages of an account and of an address", (ErrorCode.MESSAGE_RATE_LIMIT, ErrorCode.IP_RATE_LIMIT))
    TYPING = ("signals of typing of an account", (ErrorCode.TYPING_RATE_LIMIT,), "user_typing")
    SEARCHES = ("searches of an account", (ErrorCode.SEARCH_RATE_LIMIT,), "user_searches")
    ATTEMPTS = ("attempts of an address and on an account", (ErrorCode.LOGIN_RATE_LIMIT,))
    REFRESHES = ("refreshes of an address and of an account", (ErrorCode.REFRESH_RATE_LIMIT,))
    STREAMS = ("open streams of an account and of an address", (ErrorCode.CONNECTION_LIMIT,))

    def __init__(self, text: str, codes: tuple[ErrorCode, ...], window: str | None = None) -> None:
        self.text = text
        self.codes = codes
        self.window = window


SHARED = {
    "user": "user_messages",
    "address": "address_messages",
    "writes": "user_writes",
    "searches": "user_searches",
}
"""Windows that replicas share, by their names on the bus."""


def rates(settings: Settings) -> dict[str, tuple[int, float]]:
    """Return the limit and the seconds of each window of a Service, by attribute."""
    messages, session, guilds, search = settings.messaging, settings.session, settings.guilds, settings.search
    of_user, of_address = messages.max_messages_per_user_per_window, messages.max_messages_per_ip_per_window
    return {
        "user_messages": (of_user, messages.rate_limit_window_secs),
        "address_messages": (of_address, messages.rate_limit_window_secs),
        "user_repeats": (of_user * MAX_REPEATS_PER_MESSAGE, messages.rate_limit_window_secs),
        "address_repeats": (of_address * MAX_REPEATS_PER_MESSAGE, messages.rate_limit_window_secs),
        "user_writes": (guilds.max_writes_per_user_per_window, guilds.write_window_secs),
        "user_typing": (messages.max_typing_per_user_per_window, messages.rate_limit_window_secs),
        "user_searches": (search.max_searches_per_user_per_window, search.window_secs),
        "address_logins": (session.max_logins_per_address_per_window, session.login_window_secs),
        "account_logins": (session.max_logins_per_account_per_window, session.login_window_secs),
        "address_refreshes": (session.max_refreshes_per_address_per_window, session.login_window_secs),
        "account_refreshes": (session.max_refreshes_per_account_per_window, session.login_window_secs),
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
    user_typing: SlidingWindow  # key: user id
    user_searches: SlidingWindow  # key: user id
    address_logins: SlidingWindow  # key: limit_key of the client's address; login and register
    account_logins: SlidingWindow  # key: limit_key of the client's address, and the username key
    address_refreshes: SlidingWindow  # key: limit_key of the client's address
    account_refreshes: SlidingWindow  # key: user id
    sockets: StreamLimiter

    @classmethod
    def create(
        cls,
        settings: Settings,
        tokens: TokenAuthority,
        *,
        signer: EventSigner | None = None,
        workers: int = 1,
    ) -> Service:
        """Create the state from the settings. The total of streams is divided among `workers`."""
        websocket = settings.websocket
        sockets = StreamLimiter(
            -(-websocket.max_connections // workers),
            websocket.max_connections_per_user,
            websocket.max_connections_per_address,
        )
        windows = {name: SlidingWindow(limit, secs) for name, (limit, secs) in rates(settings).items()}
        return cls(settings=settings, tokens=tokens, signer=signer, sockets=sockets, **windows)

    def shared_windows(self) -> dict[str, SlidingWindow]:
        """Return the windows that replicas share, by their names on the bus."""
        return {name: getattr(self, window) for name, window in SHARED.items()}

    def apply(self, settings: Settings) -> None:
        """Replace the settings; earlier admissions still count."""
        self.settings = settings
        for name, (limit, secs) in rates(settings).items():
            window: SlidingWindow = getattr(self, name)
            window.change(limit, secs)


@dataclass(slots=True, frozen=True)
class Context:
    """`now`: monotonic seconds. `wall_ms`: UTC milliseconds. `entropy(n)`: n random bytes for ids and codes."""

    now: float
    wall_ms: int
    entropy: Callable[[int], bytes]
    service: Service
