"""The users with open notification sockets, by the channels and guilds that notify them."""

from __future__ import annotations

from collections.abc import Iterable, Set


class Watchers:
    """An index without I/O. A channel's feed is held once, while at least one user watches it.

    Sets are the keys of dicts, in insertion order, so that a replica decides the same for the same inputs.
    """

    def __init__(self) -> None:
        self._sockets: dict[str, int] = {}  # user id -> open notification sockets
        self._channels: dict[str, dict[str, None]] = {}  # user id -> channel ids
        self._guilds: dict[str, dict[str, None]] = {}  # user id -> guild ids
        self._by_channel: dict[str, dict[str, None]] = {}
        self._by_guild: dict[str, dict[str, None]] = {}
        self._read_at: dict[str, int] = {}  # user id -> the count of beginnings when what they see was read
        self.beginnings = 0  # of what users see: what was read before the last one may not be so any more

    def begin_anew(self) -> None:
        """Note that the visible channels of any user may have changed without a record: earlier readings are out of date."""
        self.beginnings += 1

    def is_current(self, user_id: str) -> bool:
        """Whether the user's visible channels are known, and were read since `begin_anew`."""
        return self._read_at.get(user_id) == self.beginnings

    def was_read(self, user_id: str, beginning: int) -> None:
        """Note that the arguments of `update` were read when the count of beginnings was `beginning`."""
        self._read_at[user_id] = beginning

    def is_watching(self, user_id: str) -> bool:
        """Whether the user's visible channels are known here: `update` was called and the interest has not ended."""
        return user_id in self._channels

    def is_retained(self, user_id: str) -> bool:
        """Whether the user has a notification socket here."""
        return user_id in self._sockets

    def users(self) -> list[str]:
        """All users who watch."""
        return list(self._channels)

    def channels_of(self, user_id: str) -> Set[str]:
        """Ids of the channels that the user watches."""
        return self._channels.get(user_id, {}).keys()

    def of_channel(self, channel_id: str) -> Set[str]:
        """Ids of the users who watch the channel."""
        return self._by_channel.get(channel_id, {}).keys()

    def of_guild(self, guild_id: str) -> Set[str]:
        """Ids of the users who watch the guild."""
        return self._by_guild.get(guild_id, {}).keys()

    def retain(self, user_id: str) -> None:
        """Count one more notification socket of this user."""
        self._sockets[user_id] = self._sockets.get(user_id, 0) + 1

    def release(self, user_id: str) -> Set[str]:
        """Count one socket less; with the last one the user stops watching. Return the channels that nobody watches now."""
        self._sockets[user_id] -= 1
        if self._sockets[user_id] > 0:
            return {}.keys()
        del self._sockets[user_id]
        _, gone = self.update(user_id, (), ())
        self._channels.pop(user_id, None)
        self._guilds.pop(user_id, None)
        self._read_at.pop(user_id, None)
        return gone

    def update(self, user_id: str, guilds: Iterable[str], channels: Iterable[str]) -> tuple[Set[str], Set[str]]:
        """Set the user's visible guilds and channels. Return (channels now watched by somebody, channels now watched by nobody)."""
        wanted_guilds, wanted = dict.fromkeys(guilds), dict.fromkeys(channels)
        _move(self._by_guild, user_id, self._guilds.get(user_id, {}), wanted_guilds)
        self._guilds[user_id] = wanted_guilds
        moved = _move(self._by_channel, user_id, self._channels.get(user_id, {}), wanted)
        self._channels[user_id] = wanted
        return moved

    def add_channel(self, users: Set[str], channel_id: str) -> bool:
        """Add a new channel that these watching users see. True: nobody watched it before."""
        for user_id in users:
            self._channels[user_id][channel_id] = None
        new = channel_id not in self._by_channel
        self._by_channel.setdefault(channel_id, {}).update(dict.fromkeys(users))
        return new

    def drop_channel(self, channel_id: str) -> bool:
        """The channel is gone. True: somebody watched it."""
        users = self._by_channel.pop(channel_id, {})
        for user_id in users:
            self._channels[user_id].pop(channel_id, None)
        return bool(users)


def _move(
    index: dict[str, dict[str, None]], user_id: str, before: dict[str, None], after: dict[str, None]
) -> tuple[Set[str], Set[str]]:
    new: dict[str, None] = {}
    gone: dict[str, None] = {}
    for key in after:
        if key not in before:
            users = index.setdefault(key, {})
            if not users:
                new[key] = None
            users[user_id] = None
    for key in before:
        if key not in after:
            users = index[key]
            users.pop(user_id, None)
            if not users:
                del index[key]
                gone[key] = None
    return new.keys(), gone.keys()
