"""Notification streams. While a user has one open, their visible channels are followed, and one ring carries all their events.

A user's notification ring is named `user:<user id>`, next to the rings of channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from functools import partial
from typing import Protocol

from openguild_proto.effects.base import StorageUnavailable
from openguild_proto.effects.channels import ReadEvents
from openguild_proto.effects.replica import ReadVisible
from openguild_proto.fanout.hub import Hub
from openguild_proto.limits import MAX_HINT_DEPTH, MAX_NOTIFIED_CHANNELS, PAGE_EVENTS
from openguild_proto.procedures import Procedure, Signal, Sleep
from openguild_proto.records import ControlRecord
from openguild_proto.replica.actions import Flush
from openguild_proto.replica.channels import Channels
from openguild_proto.replica.outputs import Outputs
from openguild_proto.replica.redactions import Redaction, blanked_frame, redacted_frame
from openguild_proto.replica.watchers import Watchers
from openguild_proto.schemas.payloads import (
    channel_created_payload,
    channel_message_payload,
    event_frame_payload,
)
from openguild_proto.ws.frames import text_frame

USER_RING = "user:"
RETRY_SECS = 1.0  # after the store was unavailable


class TooManyChannels(Exception):
    """The user can see more channels than a notification stream follows (PROTOCOL 8.10.10)."""


class ControlLog(Protocol):
    """The log whose records announce new channels."""

    def catch_up(self) -> Procedure[None]:
        """Apply the records of all changes that have been read from the store so far. Raises StorageUnavailable."""


class _Refresh:
    """A read of a user's visible channels, in progress or waiting.

    `created`: channels created since it was requested, and whether the user was told; `deleted`: channels deleted since.
    """

    __slots__ = ("created", "deleted", "ended")

    def __init__(self, ended: Signal) -> None:
        self.created: dict[str, tuple[ControlRecord, bool]] = {}
        self.deleted: set[str] = set()
        self.ended = ended


class Notifications:
    """The users with open notification sockets, the feeds of their visible channels, and their rings."""

    def __init__(self, hub: Hub, outputs: Outputs, channels: Channels) -> None:
        self.watchers = Watchers()
        self._hub = hub
        self._outputs = outputs
        self._channels = channels
        self._refreshing: dict[str, list[_Refresh]] = {}  # by user id; the first one runs, the others wait
        self._late: dict[str, dict[str, None]] = {}  # by channel id: users who are being sent its first events

    # --- watching ------------------------------------------------------------------------------------

    def retain(self, user_id: str) -> Procedure[None]:
        """Add a notification socket of this user. Returns when their visible channels are known and followed.

        Raises StorageUnavailable and TooManyChannels, with nothing retained.
        """
        self.watchers.retain(user_id)
        try:
            while True:
                if refreshes := self._refreshing.get(user_id):
                    yield from refreshes[-1].ended.wait()
                elif self.watchers.is_current(user_id):
                    return
                else:
                    yield from self.refresh(user_id)
        except BaseException:
            self.release(user_id)
            raise

    def release(self, user_id: str) -> None:
        """Undo one `retain`. After the last one the user's channels are no longer followed."""
        self._channels.unfollow(self.watchers.release(user_id))

    def refresh(self, user_id: str, log: ControlLog | None = None) -> Procedure[None]:
        """Read the user's visible channels again. Raises StorageUnavailable and TooManyChannels.

        One refresh per user runs at a time; a second one waits and then reads the store again. Pass `log` if the user has open
        streams: a new channel must be announced to them before its first message.
        """
        refreshes = self._refreshing.setdefault(user_id, [])
        refresh = _Refresh(Signal(self._outputs.procedures))
        refreshes.append(refresh)
        try:
            while refreshes[0] is not refresh:
                yield from refreshes[0].ended.wait()
            yield from self._read(user_id, refresh, log)
        finally:
            refreshes.remove(refresh)
            if not refreshes:
                del self._refreshing[user_id]
            refresh.ended.set()

    def _read(self, user_id: str, running: _Refresh, log: ControlLog | None) -> Procedure[None]:
        beginning = self.watchers.beginnings
        visible = yield from ReadVisible(user_id, MAX_NOTIFIED_CHANNELS + 1)
        if len(visible.channel_ids) > MAX_NOTIFIED_CHANNELS:
            raise TooManyChannels
        visible_channels = [c for c in dict.fromkeys(visible.channel_ids) if user_id not in self._late.get(c, ())]
        known = self.watchers.channels_of(user_id)
        if log is not None and not known >= set(visible_channels):
            yield from log.catch_up()  # so that new channels are in `created`
        known = self.watchers.channels_of(user_id) | running.created.keys()
        opened = yield from self._channels.follow([new for new in visible_channels if new not in known])
        self._channels.unfollow([channel_id for channel_id in opened if channel_id in running.deleted])
        held = [channel_id for channel_id in opened if channel_id not in running.deleted]
        if not self.watchers.is_retained(user_id):  # the last socket has left
            self._channels.unfollow(held)
            return
        watched = self.watchers.channels_of(user_id)
        kept = [channel_id for channel_id in (*visible_channels, *running.created) if channel_id in watched]
        late = [channel_id for channel_id, users in self._late.items() if user_id in users]
        lost = {*watched, *late}.difference(visible.channel_ids, running.created)
        new, gone = self.watchers.update(user_id, visible.guild_ids, [*held, *kept])
        self.watchers.was_read(user_id, beginning)
        self._channels.unfollow([channel_id for channel_id in held if channel_id not in new])
        self._channels.unfollow(gone)
        for record, told in list(running.created.values()):
            if not told and record.guild_id in visible.guild_ids:
                self._announce(record, {user_id})
        if lost:  # after the notifications that are still queued for the user
            yield from self._outputs.each([user_id], partial(self._take_back, channel_ids=lost))

    def _take_back(self, user_id: str, channel_ids: Set[str]) -> None:
        """Remove unsent notifications about these channels from the user's ring."""
        self._hub.rewrite(user_ring(user_id), partial(blanked_frame, channel_ids=channel_ids))

    def sees_too_many(self, user_id: str) -> bool:
        """Return whether the user can see too many channels after new ones were created."""
        return len(self.watchers.channels_of(user_id)) > MAX_NOTIFIED_CHANNELS

    def channel_created(self, record: ControlRecord) -> None:
        """Announce a new channel to the guild's members, and send them its messages from the first one on.

        Users who opened a stream after the channel was created may already follow it. A user with a refresh in progress may
        have just become a member: the refresh announces the channel.
        """
        if record.guild_id is None or record.channel_id is None:
            return
        members = self.watchers.of_guild(record.guild_id)
        for refreshes in self._refreshing.values():
            for refresh in refreshes:
                refresh.created[record.channel_id] = record, False
        if members:
            self._announce(record, members)

    def forget_channel(self, channel_id: str) -> None:
        """Remove a deleted channel."""
        for refreshes in self._refreshing.values():
            for refresh in refreshes:
                refresh.created.pop(channel_id, None)
                refresh.deleted.add(channel_id)
        self._late.pop(channel_id, None)
        if self.watchers.drop_channel(channel_id):
            self._channels.unfollow([channel_id])

    # --- notifying -----------------------------------------------------------------------------------

    def released(self, channel_id: str, payload: bytes) -> bool:
        """Notify the watchers of a channel's next event, given as its frame payload. Return False if there are none."""
        users = self.watchers.of_channel(channel_id)
        if users:
            self._notify(users, channel_message_payload(payload))
        return bool(users)

    def redacted(self, channel_id: str, redaction: Redaction) -> None:
        """Remove the content of a redacted message from unsent notifications, including those still queued."""

        def rewrite(user_id: str) -> None:
            self._hub.rewrite(user_ring(user_id), partial(redacted_frame, redaction=redaction))

        self._outputs.add_each(tuple(self.watchers.of_channel(channel_id)), rewrite)

    def hint(self, users: Iterable[str], payload: bytes) -> None:
        """Send users a payload that may be lost. Skips users with a slow stream: a hint must not cost them events."""
        self._outputs.add_each(tuple(users), partial(self.hint_to, frames=text_frame(payload)))

    def hint_to(self, user_id: str, frames: bytes) -> Flush | None:
        """Send one user whole frames that may be lost, unless one of their streams is too far behind."""
        return self._give(user_id, frames, MAX_HINT_DEPTH)

    def _notify(self, users: Iterable[str], payload: bytes) -> None:
        """Send users a payload in the order of the messages. It is encoded once for all users."""
        self._outputs.add_each(tuple(users), partial(self._give, frames=text_frame(payload)))

    def _give(self, user_id: str, frames: bytes, max_depth: int | None = None) -> Flush | None:
        ring = user_ring(user_id)
        if not self._hub.is_open(ring) or (max_depth is not None and self._hub.depth(ring) >= max_depth):
            return None
        return self._outputs.publish(ring, frames, self._hub.head(ring) + 1)

    def _announce(self, record: ControlRecord, users: Set[str]) -> None:
        self._notify(users, channel_created_payload(record))
        channel_id = record.channel_id
        if channel_id is None:
            return
        for user_id, refreshes in self._refreshing.items():
            for refresh in refreshes:
                if user_id in users and channel_id in refresh.created:
                    refresh.created[channel_id] = record, True
        feed = self._channels.get(channel_id)
        watching = self.watchers.of_channel(channel_id)
        being_told = self._late.get(channel_id, {})
        late = [user_id for user_id in users if user_id not in watching and user_id not in being_told]
        if feed is None or feed.head == 0:
            if self.watchers.add_channel(dict.fromkeys(late).keys(), channel_id):
                self._channels.follow_new(channel_id)
        elif late:
            self._late.setdefault(channel_id, {}).update(dict.fromkeys(late))
            self._channels.follow_new(channel_id)
            self._outputs.procedures.start(self._tell_from_the_first(record, late), "telling of a new channel's events")

    def _tell_from_the_first(self, record: ControlRecord, users: list[str]) -> Procedure[None]:
        """Send users the first events of a new channel, then let them watch it.

        Others here got these events before the record of the channel arrived.
        """
        channel_id, told = str(record.channel_id), 0
        while (feed := self._channels.get(channel_id)) is not None and told < feed.head:
            if not self._still_late(record, users):  # all of them have left
                break
            limit = min(PAGE_EVENTS, feed.head - told)
            try:
                events = yield from ReadEvents(log_id=channel_id, after=told, limit=limit)
            except Exception as failure:  # an outage or a bug: otherwise they would miss the channel's events
                if not isinstance(failure, StorageUnavailable):
                    self._outputs.defect("telling of a new channel's events", failure)
                yield from Sleep(RETRY_SECS).wait()
                continue
            if not events:
                break
            for event in events:
                payload = channel_message_payload(event_frame_payload(event))
                self._notify(self._still_late(record, users), payload)
                told = event.sequence
        ready = dict.fromkeys(self._still_late(record, users)).keys()
        late = self._late.get(channel_id, {})
        for user_id in users:
            late.pop(user_id, None)
        if not late:
            self._late.pop(channel_id, None)
        if not (ready and self.watchers.add_channel(ready, channel_id)):
            self._channels.unfollow([channel_id])

    def _still_late(self, record: ControlRecord, users: list[str]) -> list[str]:
        """Return the users who are members and still wait for the channel's first events."""
        late = self._late.get(str(record.channel_id), {})
        members = self.watchers.of_guild(str(record.guild_id))
        return [user_id for user_id in users if user_id in late and user_id in members]


def user_ring(user_id: str) -> str:
    """Return the name of a user's notification ring."""
    return USER_RING + user_id
