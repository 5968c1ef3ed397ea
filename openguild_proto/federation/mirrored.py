"""The channels that were found to be mirrored: their posts go to the owner, so that to try and store one here is a wasted trip."""

from __future__ import annotations

from collections import OrderedDict

MAX_KNOWN = 10_000  # ours: some 100 bytes each


class MirroredChannels:
    """One per process: a hint alone, which the database corrects."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, channel_id: str) -> bool:
        return channel_id in self._known

    def note(self, channel_id: str, *, mirrored: bool) -> None:
        """Keep what the database says of a channel."""
        if not mirrored:
            self._known.pop(channel_id, None)
            return
        self._known[channel_id] = None
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
