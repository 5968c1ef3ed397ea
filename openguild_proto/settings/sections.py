"""The sections of settings that the core reads. A field has the name of its key. Its default is defined only here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from openguild_proto.settings.setting import MAX_COUNT, Contradiction, Count, PositiveSeconds, Setting, Window

MAX_ACCESS_SECS = 30 * 86_400  # the default lifetime of a refresh token
MAX_GUILD_BANS = 5_000  # PROTOCOL 9.3.3: a snapshot for a mirror contains all of them, each with a reason
MAX_REFRESH_SECS = 10 * 365 * 86_400  # datetime and RFC 3339 end with the year 9999
AccessLife = Annotated[int, Meta(gt=0, le=MAX_ACCESS_SECS)]  # seconds
RefreshLife = Annotated[int, Meta(gt=0, le=MAX_REFRESH_SECS)]  # seconds


@dataclass(frozen=True, kw_only=True)
class MessagingSettings:
    """`messaging.*`: rate limits of posts, the replay of a new stream, and the capacity of a channel's ring."""

    max_messages_per_user_per_window: Annotated[Count, Setting("posts by one user per window", live=True)] = 60
    max_messages_per_ip_per_window: Annotated[Count, Setting("posts from one address per window", live=True)] = 200
    max_typing_per_user_per_window: Annotated[Count, Setting("typing signals of one user per window", live=True)] = 120
    max_reads_per_user_per_window: Annotated[
        Count,
        Setting("read position updates of one user per window; our clients send at most one per second", live=True),
    ] = 120
    rate_limit_window_secs: Annotated[
        Window, Setting("length of the window for the limits of posts, typing signals and read positions", live=True)
    ] = 60
    max_queries_per_user_per_window: Annotated[
        Count,
        Setting(
            "read requests that one user may send in a burst, per process; searches have their own limit", live=True
        ),
    ] = 3_000
    query_window_secs: Annotated[
        Window, Setting("time in which a used-up read limit refills, at an even rate", live=True)
    ] = 60
    replay_window: Annotated[
        int, Meta(ge=0, le=10_000), Setting("events replayed to a stream without `since`", live=True)
    ] = 50  # PROTOCOL 8.3.2
    queue_capacity: Annotated[
        int, Meta(gt=0, le=65_536), Setting("events that a subscriber may fall behind before its stream is closed")
    ] = 256  # PROTOCOL 8.5.1


@dataclass(frozen=True, kw_only=True)
class HttpLimits:
    """`http.*`: timeouts of requests, responses and idle connections."""

    head_timeout_secs: Annotated[
        PositiveSeconds, Setting("time limit from accept, or a request's first byte, to its last header byte")
    ] = 10
    body_timeout_secs: Annotated[
        PositiveSeconds, Setting("time limit from the end of the head to the end of the body")
    ] = 30
    request_timeout_secs: Annotated[
        PositiveSeconds, Setting("time limit from a request's last byte to its response")
    ] = 10
    idle_timeout_secs: Annotated[
        PositiveSeconds, Setting("how long an idle connection is kept between two requests")
    ] = 75


@dataclass(frozen=True, kw_only=True)
class WebSocketLimits:
    """The keys of `websocket.*` that bound one connection."""

    max_frames_per_minute: Annotated[
        int,
        Meta(ge=0, le=MAX_COUNT),
        Setting("frames from one client per minute, including fragments and pongs; 0: no limit"),
    ] = 600
    max_message_bytes: Annotated[
        int,
        Meta(ge=1_024, le=16 * 1024 * 1024),
        Setting("maximum size of a message from a client; a larger one closes the stream with 1009"),
    ] = 65_536  # PROTOCOL 8.7.2
    # PROTOCOL 8.6.1
    ping_interval_secs: Annotated[
        PositiveSeconds, Setting("interval between pings; a stream is closed after two unanswered pings")
    ] = 25
    # PROTOCOL 2.4.4, 8.5.3
    write_timeout_secs: Annotated[
        PositiveSeconds, Setting("time after which a connection that accepts no bytes is closed")
    ] = 10


@dataclass(frozen=True, kw_only=True)
class WebSocketSettings(WebSocketLimits):
    """`websocket.*`: limits of streams, and of the messages on each."""

    max_connections: Annotated[Count, Setting("maximum number of streams per replica, divided among its workers")] = (
        20_000
    )
    max_connections_per_user: Annotated[Count, Setting("maximum number of streams per user")] = 32
    max_connections_per_address: Annotated[Count, Setting("maximum number of streams per client address")] = 1_024


@dataclass(frozen=True, kw_only=True)
class SessionSettings:
    """`session.*`: lifetimes of tokens, and limits of logins and refreshes (PROTOCOL 4.3, 4.6, 9.4)."""

    # 12 h, PROTOCOL 4.3.3
    access_ttl_secs: Annotated[AccessLife, Setting("lifetime of an access token", live=True)] = 43_200
    # 30 d, PROTOCOL 4.6.6
    refresh_ttl_secs: Annotated[
        RefreshLife, Setting("lifetime of a refresh token; not below access_ttl_secs", live=True)
    ] = 2_592_000
    max_logins_per_address_per_window: Annotated[
        Count, Setting("logins and registrations from one address per window", live=True)
    ] = 60
    max_logins_per_account_per_window: Annotated[
        Count,
        Setting("logins to one account from one address per window; ten times as many from all addresses", live=True),
    ] = 10
    max_refreshes_per_address_per_window: Annotated[
        Count, Setting("refreshes from one address per window", live=True)
    ] = 600
    max_refreshes_per_account_per_window: Annotated[
        Count, Setting("refreshes of one account per window", live=True)
    ] = 60
    login_window_secs: Annotated[
        Window, Setting("length of the window for the four limits of logins and refreshes", live=True)
    ] = 60

    def __post_init__(self) -> None:
        """Raise Contradiction if a refresh token would expire before the access token."""
        if self.refresh_ttl_secs < self.access_ttl_secs:
            raise Contradiction(
                "session.refresh_ttl_secs: is shorter than session.access_ttl_secs, so no client could refresh in time: "
                "raise it",
                "session.refresh_ttl_secs",
                "session.access_ttl_secs",
            )


@dataclass(frozen=True, kw_only=True)
class GuildSettings:
    """`guilds.*`: limits per user and per guild."""

    max_owned_per_user: Annotated[Count, Setting("maximum number of guilds that one user owns", live=True)] = 100
    # /users/me lists all of them
    max_joined_per_user: Annotated[
        Count, Setting("maximum number of guilds that one user is a member of", live=True)
    ] = 1_000
    # notification streams and unread lists grow with it
    max_channels_per_guild: Annotated[Count, Setting("maximum number of channels per guild", live=True)] = 500
    max_invites_per_guild: Annotated[Count, Setting("maximum number of valid invites per guild", live=True)] = 100
    max_bans_per_guild: Annotated[
        int, Meta(gt=0, le=MAX_GUILD_BANS), Setting("maximum number of banned users per guild", live=True)
    ] = 1_000
    max_writes_per_user_per_window: Annotated[
        Count, Setting("changes by one user per window, not counting posts", live=True)
    ] = 120
    write_window_secs: Annotated[Window, Setting("length of the window for the limit of changes", live=True)] = 60


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """`search.*`: limits of searches."""

    max_searches_per_user_per_window: Annotated[Count, Setting("searches by one user per window", live=True)] = 60
    window_secs: Annotated[Window, Setting("length of the window for the limit of searches", live=True)] = 60


@dataclass(frozen=True, kw_only=True)
class PresenceSettings:
    """`presence.*`: whether members see each other's presence."""

    enabled: Annotated[bool, Setting("whether members see who is online")] = True
    max_guild_members: Annotated[
        int, Meta(gt=0, le=10_000), Setting("guilds with more members do not show presence")
    ] = 1_000


@dataclass(frozen=True, kw_only=True)
class RegistrationSettings:
    """`registration.*`: whether new accounts may be created."""

    enabled: Annotated[bool, Setting("whether new users may register", live=True)] = True
