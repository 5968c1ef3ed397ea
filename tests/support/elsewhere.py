"""Another replica on the same store, and failures of that store."""

from __future__ import annotations

from collections.abc import Collection, Coroutine
from typing import Any, TypeVar

import msgspec

from openguild_proto.canonical.event import build_event
from openguild_proto.effects import StorageEffect
from openguild_proto.effects.channels import Appended, AppendEvent
from openguild_proto.memory import MemoryTables
from openguild_proto.records import Author, Change, StoredEvent
from openguild_runtime.storage.memory import MemoryStorage
from tests.support.deeds import NOW, add_channel, add_guild, add_user, append
from tests.support.storage_handler import HeardFromStorage

T = TypeVar("T")


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("it waits")


class Elsewhere:
    """Another replica. This one receives its changes only when the test delivers them."""

    def __init__(self, tables: MemoryTables) -> None:
        self.tables = tables
        self.storage = MemoryStorage(tables)
        heard = HeardFromStorage()
        self.records = heard.records
        self.events = heard.events  # events of guilds and users
        self.storage.attach(heard)

    def perform(self, effect: StorageEffect[T]) -> T:
        """Perform a change; its control records are kept in `records`."""
        return at_once(self.storage.perform(effect))

    def user(self) -> str:
        """Create an account and return its id."""
        return at_once(add_user(self.storage))

    def guild(self, owner: str) -> str:
        """Create a guild and return its id."""
        return at_once(add_guild(self.storage, owner))

    def channel(self, owner: str, guild: str | None = None) -> str:
        """Create a channel and return its id; its guild is new unless one is given."""
        return at_once(add_channel(self.storage, guild or self.guild(owner), owner))

    def append(self, channel: str, text: str = "hi", sender: str = "someone") -> StoredEvent:
        """Store an event."""
        stored = self.perform(append(channel, sender, text=text))
        assert isinstance(stored, Appended)
        return stored.event

    def change(self, channel: str, user: str, event_type: str, change: Change, **content: str) -> StoredEvent:
        """Store a change of a message."""
        built = build_event(
            server_name="s", room_id=channel, event_type=event_type, sender=user,
            content={"target": change.target, **content}, origin_ts_ms=NOW, signer=None,
        )  # fmt: skip
        effect = AppendEvent(
            author=Author(user), channel_id=channel, sender_id=user, event_id=built.event_id, event_type=event_type,
            wire=built.wire, nonce=None, fingerprint=bytes(32), now_ms=NOW, change=change,
        )  # fmt: skip
        stored = self.perform(effect)
        assert isinstance(stored, Appended)
        return stored.event

    def lose_events(self, channel: str, head: int) -> None:
        """Lose events, as by a restore of the database to a time when the channel's log ended at `head`."""
        lost = self.tables._state.channels[channel]
        del lost.events[head:], lost.senders[head:]
        for sequence in [sequence for sequence in lost.messages if sequence > head]:
            del lost.messages[sequence]

    def renew_epochs(self, mirrored: Collection[str] = ()) -> None:
        """Give every channel a new epoch, except those in `mirrored`."""
        for channel_id, channel in self.tables._state.channels.items():
            if channel_id not in mirrored:
                channel.record = msgspec.structs.replace(channel.record, epoch=channel.record.epoch + 1)

    def lose_controls(self, head: int) -> None:
        """Lose control records, as by a restore to a time when the control log ended at `head`."""
        state = self.tables._state
        del state.control[max(0, head - state.control_pruned) :]

    def prune_controls(self, upto: int) -> None:
        """Remove control records up to this one, as retention does."""
        state = self.tables._state
        del state.control[: upto - state.control_pruned]
        state.control_pruned = upto
