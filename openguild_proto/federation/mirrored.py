"""Remembers which channels are mirrored. Their posts go to the owner, so trying to store them here first wastes a query."""

from __future__ import annotations

from collections import OrderedDict

MAX_KNOWN = 10_000  # ours: some 100 bytes each


class MirroredChannels:
    """The known mirrored channels; one per process. Only a hint: the database decides."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, channel_id: str) -> bool:
        return channel_id in self._known

    def note(self, channel_id: str, *, mirrored: bool) -> None:
        """Record the database's answer for a channel."""
        if not mirrored:
            self._known.pop(channel_id, None)
            return
        self._known[channel_id] = None
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
