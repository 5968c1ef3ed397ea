"""Records the commits of every server, and checks the invariants that hold at every moment of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from openguild_proto.effects import StorageEffect
from openguild_proto.effects.channels import Appended, AppendEvent
from openguild_proto.effects.federation import RememberNonce
from openguild_proto.effects.mirrors import DropMirror, FindMirrorHead, MirrorEvents, ReadSnapshot, StoreMirror
from openguild_proto.memory.state import ABSENT
from openguild_proto.records import StoredEvent
from openguild_proto.schemas.between_servers import Delivery

if TYPE_CHECKING:
    from tests.simulation.federation.scenario import Run
    from tests.simulation.federation.server import Server

LEFT_SECS = 30.0  # how long after its last reader has left a server may still get deliveries

Readers = frozenset[str]  # servers with a member of the guild
Place = tuple[str, int, int]  # log, epoch, sequence


class Posted(NamedTuple):
    """A post that its author knows to be stored. `began`: the time of the request; None: a restored database has the post."""

    owner: str
    channel_id: str
    event_id: str
    text: str
    began: float | None


class Books:
    """Follows every store. `events`: the only event of each place; `readers`: the servers that may have it."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.events: dict[Place, str] = {}
        self.readers: dict[Place, Readers] = {}
        self._stored_at: dict[Place, float] = {}
        self.posted: list[Posted] = []
        self.asked_once: list[tuple[str, str]] = []  # guild and name of channels whose creation was requested once
        self._left: dict[tuple[str, str], float] = {}  # (guild, server) -> when its last member left
        self._heads: dict[tuple[str, str], tuple[int, int]] = {}  # (server, log) -> epoch, sequence
        self._epochs: dict[tuple[str, str], set[int]] = {}  # (server, log) -> earlier epochs
        self._nonces: dict[tuple[str, str, str], float] = {}
        self._snapshots: dict[tuple[str, str, str], Any] = {}  # (owner, mirror, log) -> the cursor that a snapshot set
        self._grown: dict[str, list[StoredEvent]] = {}
        for server in run.servers.values():
            self.adopt(server)

    # --- each effect ---------------------------------------------------------------------------------

    def before(self, server: Server, effect: StorageEffect[Any]) -> dict[str, Readers] | None:
        """Record the readers of the server's guilds before a change."""
        if type(effect).__name__.startswith(("Find", "Read", "List", "Note", "Remember", "Store", "Move", "Take")):
            return None
        return self._audience(server)

    def performed(
        self, server: Server, effect: StorageEffect[Any], result: Any, before: dict[str, Readers] | None
    ) -> None:
        """Check an effect that was performed."""
        match effect:
            case AppendEvent() if isinstance(result, Appended) and not result.repeated:
                self._appended(server, effect, result.event)
            case RememberNonce(server=peer, nonce=nonce) if result:
                self._remembered(server, peer, nonce)
            case MirrorEvents() | StoreMirror() | DropMirror():
                self.look_at_mirror(server, effect.guild_id)
            case ReadSnapshot(peer=peer, guild_id=guild_id) if result is not None:
                if peer not in self._readers(server, guild_id):
                    self.run.violation(f"{peer} has got a snapshot without a member")
                for (name, log_id), cursor in server.state.peer_cursors.items():
                    if name == peer:
                        self._snapshots[server.name, peer, log_id] = cursor
        for event in server.tables.take_grown():
            self._grown.setdefault(server.name, []).append(event)
            guild = server.state.guilds.get(event.log_id)
            if guild is not None and guild.origin is None:
                now = self._readers(server, event.log_id)
                self._note(server, event, now | (before or {}).get(event.log_id, now))
        if before is not None:
            for guild_id, readers in before.items():
                for peer in readers - self._readers(server, guild_id):
                    self._left[guild_id, peer] = self.run.clock.now

    def take_grown(self, server: Server) -> list[StoredEvent]:
        """Return the events stored since the last call."""
        return self._grown.pop(server.name, [])

    def _appended(self, server: Server, effect: AppendEvent, event: StoredEvent) -> None:
        self._grown.setdefault(server.name, []).append(event)
        channel = server.state.channels[effect.channel_id]
        if channel.record.origin is not None:
            self.run.violation(f"{server.name} appends to a channel of {channel.record.origin}")
            return
        guild_id = channel.record.guild_id
        if server.state.guild_role(guild_id, effect.sender_id) is None and effect.sender_id not in channel.roles:
            self.run.violation(f"{effect.sender_id} has posted to {effect.channel_id} and is no member")
        self._note(server, event, self._readers(server, guild_id))

    def _note(self, server: Server, event: StoredEvent, readers: Readers) -> None:
        channel = server.state.channels.get(event.log_id)
        epoch = channel.record.epoch if channel is not None else server.state.place_of(event.log_id).epoch
        place = (event.log_id, epoch, event.sequence)
        self._is_the_one(server, place, event.event_id)
        self.readers[place] = readers
        self._stored_at.setdefault(place, self.run.clock.now)

    def _is_the_one(self, server: Server, place: Place, event_id: str) -> None:
        known = self.events.setdefault(place, event_id)
        if known != event_id:
            self.run.violation(f"{server.name} has {event_id} at {place}, where {known} stands")

    def _remembered(self, server: Server, peer: str, nonce: str) -> None:
        at = self._nonces.get((server.name, peer, nonce))
        if at is not None and server.restored_at < at:
            self.run.violation(f"{server.name} has carried out a request of {peer} twice")
        self._nonces[server.name, peer, nonce] = self.run.clock.now

    # --- readers -------------------------------------------------------------------------------------

    def _readers(self, server: Server, guild_id: str) -> Readers:
        users = server.state.users
        members = server.state.members.get(guild_id, {})
        return frozenset(users[user_id].origin or server.name for user_id in members)

    def _audience(self, server: Server) -> dict[str, Readers]:
        own = (guild_id for guild_id, guild in server.state.guilds.items() if guild.origin is None)
        return {guild_id: self._readers(server, guild_id) for guild_id in own}

    def sent(self, sender: Server, server: str, body: bytes) -> None:
        """Record a delivery that is sent: the receiver may have all its events."""
        now = self.run.clock.now
        for part in msgspec.json.decode(body, type=Delivery).logs:
            self.run.report.delivered += len(part.events)
            self._check_cursor(sender, server, part.log_id)
            if not part.events:
                continue
            if server in self._readers(sender, part.guild_id):
                continue
            left = self._left.get((part.guild_id, server), -LEFT_SECS)
            if part.log_id != part.guild_id and now > left + LEFT_SECS:
                self.run.violation(f"{server} is sent events of {part.log_id}, and has no reader since {left}")
            for sequence in range(part.after + 1, part.after + 1 + len(part.events)):
                place = (part.log_id, part.epoch, sequence)
                was_read = (
                    self._stored_at.get(place, now) <= left
                )  # a user who has joined and left since may have read the earlier events
                if not was_read and server not in self.readers.get(place, frozenset()):
                    self.run.violation(f"{server} is sent {part.log_id} {sequence}, and has no reader of it")

    def _check_cursor(self, sender: Server, server: str, log_id: str) -> None:
        """Check that a cursor is not ahead of its mirror, except at the end of a snapshot whose answer may be lost."""
        cursor, mirror = sender.state.peer_cursors.get((server, log_id)), self.run.servers[server]
        if cursor == self._snapshots.get((sender.name, server, log_id)):
            return
        here = mirror.tables.perform(FindMirrorHead(sender.name, log_id))
        if cursor is None or here is None or here.epoch != cursor.epoch or mirror.restored_at >= 0:
            return
        if here.sequence < cursor.sequence:
            self.run.violation(
                f"{sender.name} takes {server} to have {log_id} up to {cursor.sequence}: {here.sequence}"
            )

    # --- mirrors -------------------------------------------------------------------------------------

    def look_at_mirror(self, server: Server, guild_id: str) -> None:
        """Check that no mirrored log of the guild has gone back, and that each has the events of its owner."""
        state = server.state
        guild = state.guilds.get(guild_id)
        if guild is None or guild.origin is None:
            return
        place = state.place_of(guild_id)
        self._look_at_log(server, guild_id, place.epoch, state.logs[guild_id])
        for channel in state.channels_of_guild(guild_id):
            self._look_at_log(server, channel.record.channel_id, channel.record.epoch, channel.events)

    def _look_at_log(self, server: Server, log_id: str, epoch: int, events: list[StoredEvent]) -> None:
        key = (server.name, log_id)
        known, head = self._heads.get(key, (epoch, 0))
        before = self._epochs.setdefault(key, set())
        if known != epoch:
            before.add(known)
            head = 0
            if epoch in before:
                self.run.violation(f"{server.name} has {log_id} in epoch {epoch} again, after {known}")
        elif len(events) < head:
            self.run.violation(f"{server.name} had {log_id} up to {head}, and now up to {len(events)}")
        self._heads[key] = (epoch, len(events))
        for event in events[head:]:
            if event is not ABSENT and event.event_id:
                self._is_the_one(server, (log_id, epoch, event.sequence), event.event_id)

    # --- restored databases --------------------------------------------------------------------------

    def adopt(self, server: Server) -> None:
        """Record the contents of a server's own logs."""
        state = server.state
        for guild_id, guild in state.guilds.items():
            if guild.origin is not None:
                continue
            readers = self._readers(server, guild_id)
            for log in (state.logs[guild_id], *(channel.events for channel in state.channels_of_guild(guild_id))):
                for event in log:
                    self._note(server, event, readers)

    def restored(self, server: Server) -> None:
        """Record that a server's database was restored, and that its own logs have new epochs."""
        for key in [key for key in self._heads if key[0] == server.name]:
            del self._heads[key], self._epochs[key]
        kept = server.state.event_places
        self.posted = [
            post._replace(began=None) if post.owner == server.name and post.event_id in kept else post
            for post in self.posted
        ]
        self.adopt(server)
        self._grown.pop(server.name, None)
        for guild_id, readers in self._audience(server).items():
            for name in self.run.servers:
                if name not in readers:
                    self._left[guild_id, name] = self.run.clock.now
