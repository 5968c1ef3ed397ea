"""The sections that the core reads. A field's name is the key's, its default stands here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from openguild_proto.settings.setting import MAX_COUNT, Contradiction, Count, PositiveSeconds, Setting, Window

MAX_ACCESS_SECS = 30 * 86_400  # no longer than a refresh token lives where nothing else is set
MAX_REFRESH_SECS = 10 * 365 * 86_400  # datetime and RFC 3339 end with the year 9999
AccessLife = Annotated[int, Meta(gt=0, le=MAX_ACCESS_SECS)]  # seconds
RefreshLife = Annotated[int, Meta(gt=0, le=MAX_REFRESH_SECS)]  # seconds


@dataclass(frozen=True, kw_only=True)
class MessagingSettings:
    """`messaging.*`: limits of posts, what a new stream replays, and how far a subscriber may fall behind, in events."""

    max_messages_per_user_per_window: Annotated[Count, Setting("posts of one user", live=True)] = 60
    max_messages_per_ip_per_window: Annotated[Count, Setting("posts from one address", live=True)] = 200
    rate_limit_window_secs: Annotated[Window, Setting("the window of the two limits of posts", live=True)] = 60
    replay_window: Annotated[
        int, Meta(ge=0, le=10_000), Setting("events that a stream without a position begins with", live=True)
    ] = 50  # PROTOCOL 8.3.2
    queue_capacity: Annotated[
        int, Meta(gt=0, le=65_536), Setting("events that a subscriber may be behind before it is closed")
    ] = 256  # PROTOCOL 8.5.1


@dataclass(frozen=True, kw_only=True)
class HttpLimits:
    """`http.*`: how long a request may take to come and to be answered."""

    head_timeout_secs: Annotated[PositiveSeconds, Setting("from a request's first byte to its last header byte")] = 10
    body_timeout_secs: Annotated[PositiveSeconds, Setting("from the end of the head to the end of the body")] = 30
    request_timeout_secs: Annotated[PositiveSeconds, Setting("from a request's last byte to its answer")] = 10
    idle_timeout_secs: Annotated[PositiveSeconds, Setting("keep-alive between two requests")] = 75


@dataclass(frozen=True, kw_only=True)
class WebSocketLimits:
    """Those of `websocket.*` that hold one connection."""

    max_frames_per_minute: Annotated[
        int, Meta(ge=0, le=MAX_COUNT), Setting("frames from one peer, each fragment and pong counted; 0: any number")
    ] = 600
    max_message_bytes: Annotated[
        int, Meta(ge=1_024, le=16 * 1024 * 1024), Setting("one message from a peer; a longer one is closed with 1009")
    ] = 65_536  # PROTOCOL 8.7.2
    # PROTOCOL 8.6.1
    ping_interval_secs: Annotated[PositiveSeconds, Setting("between two pings; two without a pong end a stream")] = 25
    # PROTOCOL 2.4.4, 8.5.3
    write_timeout_secs: Annotated[PositiveSeconds, Setting("bytes may wait for a peer that takes none")] = 10


@dataclass(frozen=True, kw_only=True)
class WebSocketSettings(WebSocketLimits):
    """`websocket.*`: how many streams, and what each may send."""

    max_connections: Annotated[Count, Setting("streams in all")] = 20_000
    max_connections_per_user: Annotated[Count, Setting("streams of one user")] = 32
    max_connections_per_address: Annotated[Count, Setting("streams from one address")] = 1_024


@dataclass(frozen=True, kw_only=True)
class SessionSettings:
    """`session.*`: how long tokens live, and limits of logins and refreshes (PROTOCOL 4.3, 4.6, 9.4)."""

    # 12 h, PROTOCOL 4.3.3
    access_ttl_secs: Annotated[AccessLife, Setting("life of an access token", live=True)] = 43_200
    # 30 d, PROTOCOL 4.6.6
    refresh_ttl_secs: Annotated[
        RefreshLife, Setting("life of a refresh token; not shorter than the other", live=True)
    ] = 2_592_000
    max_logins_per_address_per_window: Annotated[
        Count, Setting("logins and registrations from one address", live=True)
    ] = 60
    max_logins_per_account_per_window: Annotated[
        Count, Setting("logins to one account from one address, and ten times as many from all together", live=True)
    ] = 10
    max_refreshes_per_address_per_window: Annotated[Count, Setting("refreshes from one address", live=True)] = 600
    max_refreshes_per_account_per_window: Annotated[Count, Setting("refreshes of one account", live=True)] = 60
    login_window_secs: Annotated[
        Window, Setting("the window of the four limits of logins and refreshes", live=True)
    ] = 60

    def __post_init__(self) -> None:
        """Raises Contradiction."""
        if self.refresh_ttl_secs < self.access_ttl_secs:
            raise Contradiction(
                "session.refresh_ttl_secs: is shorter than session.access_ttl_secs, so nobody could refresh in time; "
                "make it the longer one",
                "session.refresh_ttl_secs",
                "session.access_ttl_secs",
            )


@dataclass(frozen=True, kw_only=True)
class GuildSettings:
    """`guilds.*`: what one account may own and join, one guild may hold, and one user may change."""

    max_owned_per_user: Annotated[Count, Setting("guilds that one user owns", live=True)] = 100
    # /users/me tells all of them
    max_joined_per_user: Annotated[Count, Setting("guilds that one user is a member of", live=True)] = 1_000
    # what a notification stream follows and an unread list shows grows with it
    max_channels_per_guild: Annotated[Count, Setting("channels of one guild", live=True)] = 500
    max_invites_per_guild: Annotated[Count, Setting("living invites of one guild", live=True)] = 100
    max_writes_per_user_per_window: Annotated[Count, Setting("changes by one user, posts apart", live=True)] = 120
    write_window_secs: Annotated[Window, Setting("the window of the limit of changes", live=True)] = 60


@dataclass(frozen=True, kw_only=True)
class RegistrationSettings:
    """`registration.*`."""

    enabled: Annotated[bool, Setting("whether anybody may open an account", live=True)] = True
