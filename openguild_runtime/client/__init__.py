"""A client on anyio: it logs in, follows all channels of its user, and posts each message exactly once.

A bot that answers:

    client = Client("http://127.0.0.1:8080", session_file="bot.json")

    @client.on(MessagePosted)
    async def answer(message: MessagePosted) -> None:
        if message.text == "ping":
            await message.reply("pong")

    client.run("bot", "correct horse battery")

`openguild_proto.client` decides what to retry and when, and where to resume. A client can have several addresses of one
service; when one fails, it uses the next.
"""

try:
    import anyio as _anyio  # noqa: F401
except ModuleNotFoundError:  # without `name=`, or Python 3.15 adds a suggestion
    raise ModuleNotFoundError("openguild_runtime.client needs anyio: pip install 'openguild[server]'") from None

from openguild_proto.client import (
    ApiError,
    Conflict,
    Forbidden,
    NotFound,
    Problem,
    RateLimited,
    ResumePosition,
    Session,
    Unauthorized,
)
from openguild_proto.schemas.accounts import Me, Profile
from openguild_proto.schemas.guilds import Ban, Channel, Guild, Invite, Member
from openguild_proto.schemas.messages import (
    ChangedMessage,
    Mention,
    Message,
    ReadPosition,
    TextVersion,
)
from openguild_proto.schemas.search import SearchResult
from openguild_runtime.client.events import (
    Connected,
    Event,
    Interrupted,
    LogEvent,
    LogFollowed,
    LogGone,
    MessageEdited,
    MessageEvent,
    MessagePinned,
    MessagePosted,
    MessageRedacted,
    MessageUnpinned,
    PresenceChanged,
    ReactionAdded,
    ReactionRemoved,
    ReactionsCleared,
    TextRedacted,
    UnknownEvent,
    UserTyping,
)
from openguild_runtime.client.gateway import Gateway
from openguild_runtime.client.log_events import (
    ChannelCreated,
    ChannelDeleted,
    ChannelRead,
    ChannelRoleGiven,
    ChannelRoleSet,
    ChannelUpdated,
    DeviceLoggedIn,
    DeviceLoggedOut,
    GuildCreated,
    GuildJoined,
    GuildLeft,
    GuildMoved,
    GuildSuccessorSet,
    GuildUpdated,
    InviteCreated,
    InviteDeleted,
    MemberBanned,
    MemberJoined,
    MemberLeft,
    MemberRemoved,
    MemberRoleSet,
    MemberTimedOut,
    MemberUnbanned,
    Mentioned,
    ProfileUpdated,
)
from openguild_runtime.client.messages import Posted
from openguild_runtime.client.notifications import Notification, UnknownNotification
from openguild_runtime.client.session import Client
from openguild_runtime.client.subscription import ChannelEvent, StreamEnded, Subscription
from openguild_runtime.client.transport import Address, ClientClosed, OutcomeUnknown, TlsFailed

__all__ = [
    "Address",
    "ApiError",
    "Ban",
    "ChangedMessage",
    "Channel",
    "ChannelCreated",
    "ChannelDeleted",
    "ChannelEvent",
    "ChannelRead",
    "ChannelRoleGiven",
    "ChannelRoleSet",
    "ChannelUpdated",
    "Client",
    "ClientClosed",
    "Conflict",
    "Connected",
    "DeviceLoggedIn",
    "DeviceLoggedOut",
    "Event",
    "Forbidden",
    "Gateway",
    "Guild",
    "GuildCreated",
    "GuildJoined",
    "GuildLeft",
    "GuildMoved",
    "GuildSuccessorSet",
    "GuildUpdated",
    "Interrupted",
    "Invite",
    "InviteCreated",
    "InviteDeleted",
    "LogEvent",
    "LogFollowed",
    "LogGone",
    "Me",
    "Member",
    "MemberBanned",
    "MemberJoined",
    "MemberLeft",
    "MemberRemoved",
    "MemberRoleSet",
    "MemberTimedOut",
    "MemberUnbanned",
    "Mention",
    "Mentioned",
    "Message",
    "MessageEdited",
    "MessageEvent",
    "MessagePinned",
    "MessagePosted",
    "MessageRedacted",
    "MessageUnpinned",
    "NotFound",
    "Notification",
    "OutcomeUnknown",
    "Posted",
    "PresenceChanged",
    "Problem",
    "Profile",
    "ProfileUpdated",
    "RateLimited",
    "ReactionAdded",
    "ReactionRemoved",
    "ReactionsCleared",
    "ReadPosition",
    "ResumePosition",
    "SearchResult",
    "Session",
    "StreamEnded",
    "Subscription",
    "TextRedacted",
    "TextVersion",
    "TlsFailed",
    "Unauthorized",
    "UnknownEvent",
    "UnknownNotification",
    "UserTyping",
]
