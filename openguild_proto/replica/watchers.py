"""Who is to be notified of what: users with open notification sockets, by channel and by guild."""

from __future__ import annotations

from collections.abc import Iterable, Set


class Watchers:
    """An index without I/O. A channel's feed is held once, while at least one user watches it."""

    def __init__(self) -> None:
        self._sockets: dict[str, int] = {}  # user id -> open notification sockets
        self._channels: dict[str, set[str]] = {}  # user id -> channel ids
        self._guilds: dict[str, set[str]] = {}  # user id -> guild ids
        self._by_channel: dict[str, set[str]] = {}
        self._by_guild: dict[str, set[str]] = {}
        self._read_at: dict[str, int] = {}  # user id -> the count of beginnings when what they see was read
        self.beginnings = 0  # of what users see: what was read before the last one may not be so any more

    def begin_anew(self) -> None:
        """What users see may have changed without a record of it: whatever was read before is current no more."""
        self.beginnings += 1

    def is_current(self, user_id: str) -> bool:
        """Whether what the user sees is known, and was read since everything began anew."""
        return self._read_at.get(user_id) == self.beginnings

    def was_read(self, user_id: str, beginning: int) -> None:
        """What was given to `update` was read when the count of beginnings was `beginning`."""
        self._read_at[user_id] = beginning

    def is_watching(self, user_id: str) -> bool:
        """Whether what the user sees is known here: `update` was called and the interest has not ended."""
        return user_id in self._channels

    def is_retained(self, user_id: str) -> bool:
        """Whether the user has a notification socket here."""
        return user_id in self._sockets

    def users(self) -> list[str]:
        """Whoever watches."""
        return list(self._channels)

    def channels_of(self, user_id: str) -> Set[str]:
        """Ids of the channels that the user watches."""
        return self._channels.get(user_id, set())

    def of_channel(self, channel_id: str) -> Set[str]:
        """Ids of the users who watch the channel."""
        return self._by_channel.get(channel_id, set())

    def of_guild(self, guild_id: str) -> Set[str]:
        """Ids of the users who watch the guild."""
        return self._by_guild.get(guild_id, set())

    def retain(self, user_id: str) -> None:
        """One more notification socket of this user."""
        self._sockets[user_id] = self._sockets.get(user_id, 0) + 1

    def release(self, user_id: str) -> set[str]:
        """One socket less; with the last one the user's interest ends. Returns channels nobody watches any more."""
        self._sockets[user_id] -= 1
        if self._sockets[user_id] > 0:
            return set()
        del self._sockets[user_id]
        _, gone = self.update(user_id, (), ())
        self._channels.pop(user_id, None)
        self._guilds.pop(user_id, None)
        self._read_at.pop(user_id, None)
        return gone

    def update(self, user_id: str, guilds: Iterable[str], channels: Iterable[str]) -> tuple[set[str], set[str]]:
        """What the user sees now. Returns (channels watched by somebody from now on, channels watched by nobody now)."""
        _move(self._by_guild, user_id, self._guilds.get(user_id, set()), set(guilds))
        self._guilds[user_id] = set(guilds)
        wanted = set(channels)
        moved = _move(self._by_channel, user_id, self._channels.get(user_id, set()), wanted)
        self._channels[user_id] = wanted
        return moved

    def add_channel(self, users: Set[str], channel_id: str) -> bool:
        """A new channel that these watching users see. True: nobody watched it before."""
        for user_id in users:
            self._channels[user_id].add(channel_id)
        new = channel_id not in self._by_channel
        self._by_channel.setdefault(channel_id, set()).update(users)
        return new

    def drop_channel(self, channel_id: str) -> bool:
        """The channel is gone. True: somebody watched it."""
        users = self._by_channel.pop(channel_id, set())
        for user_id in users:
            self._channels[user_id].discard(channel_id)
        return bool(users)


def _move(index: dict[str, set[str]], user_id: str, before: set[str], after: set[str]) -> tuple[set[str], set[str]]:
    new, gone = set(), set()
    for key in after - before:
        users = index.setdefault(key, set())
        if not users:
            new.add(key)
        users.add(user_id)
    for key in before - after:
        users = index[key]
        users.discard(user_id)
        if not users:
            del index[key]
            gone.add(key)
    return new, gone
