"""Tracks the last upkeep round of a mirror with each owner: members who have left, and mirrors to remove."""

from __future__ import annotations

from collections import OrderedDict

UPKEEP_SECS = 60.0  # PROTOCOL 16.8.15: between two rounds with one owner
MAX_KNOWN = 1_024  # ours: owners, and guilds that were denied


class Upkeep:
    """The state of the rounds; one per process. `now`: monotonic seconds."""

    __slots__ = ("_denied", "_rounds", "_unmirrored", "past")

    def __init__(self) -> None:
        self._rounds: OrderedDict[str, float] = OrderedDict()  # by owner: start of the last round
        self._denied: OrderedDict[str, float] = OrderedDict()  # by guild: when the owner first said it is not mirrored
        self._unmirrored: OrderedDict[str, tuple[str, float]] = OrderedDict()  # by owner: a guild, and since when
        self.past: dict[str, str | None] = {}  # by owner: the guild that was checked last

    def begin(self, owner: str, now: float) -> bool:
        """Return whether a round with an owner is due, and if so begin it."""
        if self._rounds.get(owner, float("-inf")) + UPKEEP_SECS > now:
            return False
        self._rounds[owner] = now
        self._rounds.move_to_end(owner)
        if len(self._rounds) > MAX_KNOWN:
            self.past.pop(self._rounds.popitem(last=False)[0], None)
        return True

    def confirmed(self, guild_id: str) -> None:
        """Record that the owner says that a guild is mirrored."""
        self._denied.pop(guild_id, None)

    def denied(self, guild_id: str, now: float) -> bool:
        """Note that the owner says a guild is not mirrored. Return whether it has said so before, some time ago."""
        first = self._denied.setdefault(guild_id, now)
        if len(self._denied) > MAX_KNOWN:
            self._denied.popitem(last=False)
        return first + UPKEEP_SECS / 2 <= now

    def unmirrored(self, owner: str, guild_id: str, now: float) -> None:
        """Record that the owner delivers a guild that is not mirrored here."""
        self._unmirrored.setdefault(owner, (guild_id, now))
        if len(self._unmirrored) > MAX_KNOWN:
            self._unmirrored.popitem(last=False)

    def take_unmirrored(self, owner: str, now: float) -> str | None:
        """Return an unmirrored guild that the owner delivered some time ago, longer ago than a join can take."""
        guild_id, since = self._unmirrored.get(owner, (None, now))
        if since + UPKEEP_SECS / 2 > now:
            return None
        del self._unmirrored[owner]
        return guild_id
