"""Rate-limits typing signals, so that no channel floods its readers."""

from __future__ import annotations

from collections import OrderedDict

from openguild_proto.limits import MAX_TYPISTS, MAX_TYPISTS_PER_CHANNEL, TYPING_SECS


class TypingThrottle:
    """Admits one signal per user and channel every `TYPING_SECS`, from at most MAX_TYPISTS_PER_CHANNEL users of a channel."""

    def __init__(self) -> None:
        self._passed: OrderedDict[tuple[str, str], float] = (
            OrderedDict()
        )  # (channel id, user id) -> monotonic seconds, oldest first
        self._typing_users: dict[str, int] = {}  # channel id -> number of its entries in `_passed`

    def admits(self, channel_id: str, user_id: str, now: float) -> bool:
        """Return whether this signal is forwarded, and count it if so."""
        self._forget(now - TYPING_SECS)
        typing_users = self._typing_users.get(channel_id, 0)
        if (
            (channel_id, user_id) in self._passed
            or typing_users >= MAX_TYPISTS_PER_CHANNEL
            or len(self._passed) >= MAX_TYPISTS
        ):
            return False
        self._passed[channel_id, user_id] = now
        self._typing_users[channel_id] = typing_users + 1
        return True

    def _forget(self, before: float) -> None:
        while self._passed:
            (channel_id, _), at = next(iter(self._passed.items()))
            if at > before:
                return
            self._passed.popitem(last=False)
            self._typing_users[channel_id] -= 1
            if not self._typing_users[channel_id]:
                del self._typing_users[channel_id]
