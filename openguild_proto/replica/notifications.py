"""Notification streams: while a user has one open, their visible channels are followed, and one ring carries all events.

A user's notification stream is the ring `user:<user id>`, in addition to the rings of channels.
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
from openguild_proto.replica.redactions import Redaction, frame_taken_back, redacted_frame
from openguild_proto.replica.watchers import Watchers
from openguild_proto.schemas.payloads import (
    channel_created_payload,
    channel_message_payload,
    event_frame_payload,
)
from openguild_proto.ws.frames import text_frame

USER_RING = "user:"
RETRY_SECS = 1.0  # after the store could not be reached


class TooManyChannels(Exception):
    """The user sees more channels than a notification stream follows (PROTOCOL 8.10.10)."""


class ControlLog(Protocol):
    """The log of the records about new channels."""

    def catch_up(self) -> Procedure[None]:
        """Apply the records of all changes that the store has shown by now. Raises StorageUnavailable."""


class _Refresh:
    """A read of a user's visible channels, in progress or waiting for its turn.

    `created`: channels created since it was requested, and whether the user was told; `deleted`: deleted channels.
    """

    __slots__ = ("created", "deleted", "ended")

    def __init__(self, ended: Signal) -> None:
        self.created: dict[str, tuple[ControlRecord, bool]] = {}
        self.deleted: set[str] = set()
        self.ended = ended


class Notifications:
    """Users with open notification sockets, the feeds of their visible channels, and their notifications."""

    def __init__(self, hub: Hub, outputs: Outputs, channels: Channels) -> None:
        self.watchers = Watchers()
        self._hub = hub
        self._outputs = outputs
        self._channels = channels
        self._refreshing: dict[str, list[_Refresh]] = {}  # by user id; the first runs, the others wait
        self._late: dict[str, dict[str, None]] = {}  # by channel id: users who are being told of its first events

    # --- who watches what ----------------------------------------------------------------------------

    def retain(self, user_id: str) -> Procedure[None]:
        """Add a notification socket of this user, when their visible channels are known.

        Raises StorageUnavailable, TooManyChannels, with nothing retained.
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
        """Undo one `retain`; with the last one the user's interest ends."""
        self._channels.unfollow(self.watchers.release(user_id))

    def refresh(self, user_id: str, log: ControlLog | None = None) -> Procedure[None]:
        """Read again which channels the user sees. Raises StorageUnavailable, TooManyChannels.

        One refresh of a user runs at a time: a second one waits for it and then reads the store again. `log`: if the user has
        open streams, so that a new channel is announced to them before its first message.
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
            yield from log.catch_up()  # so that those which are new are in `created`
        known = self.watchers.channels_of(user_id) | running.created.keys()
        opened = yield from self._channels.follow([new for new in visible_channels if new not in known])
        self._channels.unfollow([channel_id for channel_id in opened if channel_id in running.deleted])
        held = [channel_id for channel_id in opened if channel_id not in running.deleted]
        if not self.watchers.is_retained(user_id):  # the last socket went away meanwhile
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
        if lost:  # behind what the user is still being told of them
            yield from self._outputs.each([user_id], partial(self._take_back, channel_ids=lost))

    def _take_back(self, user_id: str, channel_ids: Set[str]) -> None:
        """Remove the unsent notifications about these channels."""
        self._hub.rewrite(user_ring(user_id), partial(frame_taken_back, channel_ids=channel_ids))

    def sees_too_many(self, user_id: str) -> bool:
        """Return whether the user has too many channels after new ones, so that their streams end."""
        return len(self.watchers.channels_of(user_id)) > MAX_NOTIFIED_CHANNELS

    def channel_created(self, record: ControlRecord) -> None:
        """Tell the guild's members, and send them the channel's messages from the first one on.

        Users who opened a stream after the channel was created may have got its messages before the record came. A user
        whose channels are being read may just have become a member: they are told when that is known.
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
        """The channel is gone: stop its notifications."""
        for refreshes in self._refreshing.values():
            for refresh in refreshes:
                refresh.created.pop(channel_id, None)
                refresh.deleted.add(channel_id)
        self._late.pop(channel_id, None)
        if self.watchers.drop_channel(channel_id):
            self._channels.unfollow([channel_id])

    # --- what they are told --------------------------------------------------------------------------

    def released(self, channel_id: str, payload: bytes) -> bool:
        """The next event of a channel, as its frame payload. False: nobody watches the channel."""
        users = self.watchers.of_channel(channel_id)
        if users:
            self._notify(users, channel_message_payload(payload))
        return bool(users)

    def redacted(self, channel_id: str, redaction: Redaction) -> None:
        """Remove unsent notifications about the message, after those that are still being created."""

        def rewrite(user_id: str) -> None:
            self._hub.rewrite(user_ring(user_id), partial(redacted_frame, redaction=redaction))

        self._outputs.add_each(tuple(self.watchers.of_channel(channel_id)), rewrite)

    def hint(self, users: Iterable[str], payload: bytes) -> None:
        """Send users a hint, which may be lost. Users with a stream that is behind get none, so that it costs them no events."""
        self._outputs.add_each(tuple(users), partial(self.hint_to, frames=text_frame(payload)))

    def hint_to(self, user_id: str, frames: bytes) -> Flush | None:
        """Send one user hints, which may be lost, as whole frames."""
        return self._give(user_id, frames, MAX_HINT_DEPTH)

    def _notify(self, users: Iterable[str], payload: bytes) -> None:
        """Notify users in the order of the messages. The payload is encoded once for all of them."""
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
        """Send users the events of a new channel that others here got before its record came, then let them watch it."""
        channel_id, told = str(record.channel_id), 0
        while (feed := self._channels.get(channel_id)) is not None and told < feed.head:
            if not self._still_late(record, users):  # all of them have left
                break
            limit = min(PAGE_EVENTS, feed.head - told)
            try:
                events = yield from ReadEvents(log_id=channel_id, after=told, limit=limit)
            except StorageUnavailable:
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
        """Return the users who are members and wait for the channel's first events."""
        late = self._late.get(str(record.channel_id), {})
        members = self.watchers.of_guild(str(record.guild_id))
        return [user_id for user_id in users if user_id in late and user_id in members]


def user_ring(user_id: str) -> str:
    """The ring of a user's notification stream."""
    return USER_RING + user_id
