"""A server, with tables in memory, that owns a guild which others mirror."""

from __future__ import annotations

import itertools
import uuid
from typing import Any

from openguild_proto.canonical.event import build_event, event_hash, wire_bytes
from openguild_proto.canonical.keys import EventSigner
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.canonical.verify import ServerKeys
from openguild_proto.effects.accounts import InsertUser
from openguild_proto.effects.channels import (
    AppendEvent,
    InsertChannel,
)
from openguild_proto.effects.guilds import (
    InsertGuild,
    InsertInvite,
)
from openguild_proto.effects.logs import ReadLogs
from openguild_proto.effects.mirrors import (
    JoinFromServer,
    RemoteJoin,
)
from openguild_proto.memory import MemoryTables
from openguild_proto.mirror_records import MirroredEvent, RemoteUser
from openguild_proto.operations.mirrored_events import read_mirrored
from openguild_proto.records import Author, LogPart, LogPosition, StoredEvent
from openguild_proto.schemas.event_effects import effect_of_event
from openguild_proto.schemas.events import parse_content, parse_event
from openguild_proto.schemas.log_writer import LogWriter

OWNER, HERE = "owner.example", "localhost"
NOW_MS = 1_800_000_000_000
SIGNER = EventSigner(OWNER, "1", SigningKey(b"o" * 32))
HERE_SIGNER = EventSigner(HERE, "1", SigningKey(b"h" * 32))
KEYS = {OWNER: {"ed25519:1": SIGNER.public}, HERE: {"ed25519:1": HERE_SIGNER.public}}


def keys_at(at_ms: int) -> ServerKeys:
    """Return both keys, for any time."""
    return KEYS


numbers = itertools.count(1)


def new_id() -> str:
    return str(uuid.uuid4())


class Owner:
    """A server that owns a guild with an owner, an invite and a channel."""

    def __init__(self) -> None:
        self.tables = MemoryTables(LogWriter(OWNER, SIGNER))
        self.guild_id, self.channel_id, self.user_id = new_id(), new_id(), new_id()
        self.code = f"code{next(numbers)}"
        self.author = Author(self.user_id)
        self.do(InsertUser(self.user_id, "olga", f"olga{self.user_id}", "", NOW_MS))
        self.do(InsertGuild(self.author, self.guild_id, "far away", NOW_MS))
        self.do(InsertChannel(self.author, self.channel_id, self.guild_id, "general", NOW_MS))
        self.do(InsertInvite(self.author, self.code, self.guild_id, None, None, NOW_MS))

    def do(self, effect: Any) -> Any:
        return self.tables.perform(effect)

    def join(self, user_id: str, name: str = "bob") -> RemoteJoin:
        joined = self.do(
            JoinFromServer(
                peer=HERE, user=RemoteUser(user_id, name), code=self.code, role="member", now_ms=NOW_MS, limit=100,
                wants_snapshot=True,
            )
        )  # fmt: skip
        assert isinstance(joined, RemoteJoin)
        return joined

    def append(
        self,
        event_type: str,
        content: dict[str, Any],
        *,
        sender: str | None = None,
        home: str = OWNER,
        lies: bool = False,
    ) -> StoredEvent:
        """Append an event. With `lies`, skip the checks that an honest owner makes."""
        sender = sender or self.user_id
        content = {"author": {"id": sender, "username": "x"}, **content, "nonce": f"n{next(numbers)}"}
        built = build_event(
            server_name=home, room_id=self.channel_id, event_type=event_type, sender=sender, content=content,
            origin_ts_ms=NOW_MS, signer=None,
        )  # fmt: skip
        signatures = SIGNER.sign(event_hash(built.canonical))
        if home == HERE:
            signatures |= HERE_SIGNER.sign(event_hash(built.canonical))
        wire = wire_bytes(built.canonical, built.event_id, signatures)
        event = parse_event(wire)
        said = effect_of_event(event, parse_content(event))
        appended = self.do(
            AppendEvent(
                author=None if lies else Author(sender), channel_id=self.channel_id, sender_id=sender, event_id=built.event_id,
                event_type=event_type, wire=wire, nonce=None, fingerprint=b"", now_ms=NOW_MS, change=said.change,
                mentions=said.mentions,
            )
        )  # fmt: skip
        stored: StoredEvent = appended.event
        return stored

    def post(self, text: str, **more: Any) -> StoredEvent:
        return self.append("message", {"content": text}, **more)

    def news(self, log_id: str, after: int, size: int = 100) -> tuple[MirroredEvent, ...]:
        events = self.do(ReadLogs(parts=(LogPart(log_id, after, size),)))
        return tuple(
            read_mirrored(
                event.wire, LogPosition(log_id, 1, event.sequence), OWNER, HERE, keys_at, at_ms=event.created_at_ms,
                of_guild=log_id == self.guild_id,
            )
            for event in events
        )  # fmt: skip
