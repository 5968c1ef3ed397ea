"""The known mirrored channels: their posts go to the owner, so an attempt to store one here would waste a query."""

from __future__ import annotations

from collections import OrderedDict

MAX_KNOWN = 10_000  # ours: some 100 bytes each


class MirroredChannels:
    """One per process. It is only a hint, which the database corrects."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, channel_id: str) -> bool:
        return channel_id in self._known

    def note(self, channel_id: str, *, mirrored: bool) -> None:
        """Remember whether the database says that a channel is mirrored."""
        if not mirrored:
            self._known.pop(channel_id, None)
            return
        self._known[channel_id] = None
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
