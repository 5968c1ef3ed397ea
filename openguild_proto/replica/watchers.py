"""The users with open notification sockets, by the channels and guilds that notify them."""

from __future__ import annotations

from collections.abc import Iterable, Set


class Watchers:
    """An index of watchers. A channel's feed is held once, while at least one user watches it.

    Sets are dict keys, which keep their order, so that a replica decides the same for the same inputs.
    """

    def __init__(self) -> None:
        self._sockets: dict[str, int] = {}  # user id -> open notification sockets
        self._channels: dict[str, dict[str, None]] = {}  # user id -> channel ids
        self._guilds: dict[str, dict[str, None]] = {}  # user id -> guild ids
        self._by_channel: dict[str, dict[str, None]] = {}
        self._by_guild: dict[str, dict[str, None]] = {}
        self._read_at: dict[str, int] = {}  # user id -> `beginnings` when their channels were read
        self.beginnings = 0  # number of `begin_anew` calls

    def begin_anew(self) -> None:
        """Mark every user's visible channels as out of date, because they may have changed without a record."""
        self.beginnings += 1

    def is_current(self, user_id: str) -> bool:
        """Return whether the user's visible channels are known and were read since `begin_anew`."""
        return self._read_at.get(user_id) == self.beginnings

    def was_read(self, user_id: str, beginning: int) -> None:
        """Record that the last `update` of this user was read when `beginnings` was `beginning`."""
        self._read_at[user_id] = beginning

    def is_watching(self, user_id: str) -> bool:
        """Return whether the user's visible channels are known: `update` was called and `release` has not ended it."""
        return user_id in self._channels

    def is_retained(self, user_id: str) -> bool:
        """Return whether the user has a notification socket here."""
        return user_id in self._sockets

    def users(self) -> list[str]:
        """Return the ids of all users who watch."""
        return list(self._channels)

    def channels_of(self, user_id: str) -> Set[str]:
        """Return the ids of the channels that the user watches."""
        return self._channels.get(user_id, {}).keys()

    def of_channel(self, channel_id: str) -> Set[str]:
        """Return the ids of the users who watch the channel."""
        return self._by_channel.get(channel_id, {}).keys()

    def of_guild(self, guild_id: str) -> Set[str]:
        """Return the ids of the users who watch the guild."""
        return self._by_guild.get(guild_id, {}).keys()

    def retain(self, user_id: str) -> None:
        """Add a notification socket of this user."""
        self._sockets[user_id] = self._sockets.get(user_id, 0) + 1

    def release(self, user_id: str) -> Set[str]:
        """Remove a notification socket of this user, and with the last one the user.

        Return the channels that nobody watches any more.
        """
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
        """Set the user's visible guilds and channels. Return (channels newly watched, channels no longer watched by anybody)."""
        wanted_guilds, wanted = dict.fromkeys(guilds), dict.fromkeys(channels)
        _move(self._by_guild, user_id, self._guilds.get(user_id, {}), wanted_guilds)
        self._guilds[user_id] = wanted_guilds
        moved = _move(self._by_channel, user_id, self._channels.get(user_id, {}), wanted)
        self._channels[user_id] = wanted
        return moved

    def add_channel(self, users: Set[str], channel_id: str) -> bool:
        """Add a new channel for these users, who all watch. Return True if nobody watched it before."""
        for user_id in users:
            self._channels[user_id][channel_id] = None
        new = channel_id not in self._by_channel
        self._by_channel.setdefault(channel_id, {}).update(dict.fromkeys(users))
        return new

    def drop_channel(self, channel_id: str) -> bool:
        """Remove a deleted channel. Return True if somebody watched it."""
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
