"""Planted bugs: plausible mistakes in federation, which the simulation must find."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from openguild_proto.canonical.receipts import first_link
from openguild_proto.effects import Effect, StorageEffect
from openguild_proto.effects.bans import BanUser
from openguild_proto.effects.channels import AppendEvent, FindChannelAccess
from openguild_proto.effects.deliveries import ChainPart, ReadChains
from openguild_proto.effects.federation import AskPeer, RememberNonce
from openguild_proto.effects.guilds import RemoveMember
from openguild_proto.effects.mirrors import DropMirror, JoinFromServer, MirrorEvents, MirrorOutcome, StoreMirror
from openguild_proto.records import LogPosition, Redact, StoredEvent
from openguild_proto.schemas.between_servers import Delivery
from tests.simulation.federation.network import DELIVERIES
from tests.simulation.federation.server import Done, Server

Perform = Callable[[StorageEffect[Any]], Any]


def move_cursors_before_the_answer(server: Server) -> None:
    """The owner moves the mirror's cursor when it sends, before the answer."""
    perform = server.perform

    def early(effect: Effect[Any], done: Done) -> None:
        if isinstance(effect, AskPeer) and effect.target == DELIVERIES:
            for part in msgspec.json.decode(effect.body, type=Delivery).logs:
                place = LogPosition(part.log_id, part.epoch, part.after + len(part.events))
                server.state.peer_cursors[effect.server, part.log_id] = place
        perform(effect, done)

    server.perform = early  # type: ignore[method-assign]  # this is the bug


def trust_the_home(server: Server) -> None:
    """The owner accepts a post of another server without a check, because the home server has checked the right."""

    def trusting(effect: StorageEffect[Any], perform: Perform) -> Any:
        if isinstance(effect, AppendEvent) and effect.change is None and _is_remote(server, effect.sender_id):
            return perform(replace(effect, author=None))
        found = perform(effect)
        if isinstance(effect, FindChannelAccess) and found is not None and _is_remote(server, effect.user_id):
            return replace(found, guild_role="member")
        return found

    _around(server, trusting)


def begin_chains_at_each_receipt(server: Server) -> None:
    """A receipt does not chain the earlier one."""

    def unchained(effect: StorageEffect[Any], perform: Perform) -> Any:
        parts = perform(effect)
        if not isinstance(effect, ReadChains):
            return parts
        return tuple(ChainPart(replace(part.point, hash=first_link(*_of(part))), part.event_ids) for part in parts)

    server.deliveries._preparing._chains.get = lambda place: None  # type: ignore[method-assign]  # so that it reads all of them
    _around(server, unchained)


def _of(part: ChainPart) -> tuple[str, int, int]:
    place = part.point.place
    return place.log_id, place.epoch, place.sequence


def forget_nonces_of_requests(server: Server) -> None:
    """A repeated signed request is carried out again."""

    def forgetting(effect: StorageEffect[Any], perform: Perform) -> Any:
        if isinstance(effect, RememberNonce):
            server.state.peer_nonces.pop((effect.server, effect.nonce), None)
        return perform(effect)

    _around(server, forgetting)


def forget_nonces_of_posts(server: Server) -> None:
    """A repeated post of another server is posted again."""

    def forgetting(effect: StorageEffect[Any], perform: Perform) -> Any:
        if isinstance(effect, AppendEvent) and _is_remote(server, effect.sender_id):
            effect = replace(effect, nonce=None)
        return perform(effect)

    _around(server, forgetting)


def keep_redacted_texts(server: Server) -> None:
    """A mirror stores a redaction, but keeps the text."""

    def keeping(effect: StorageEffect[Any], perform: Perform) -> Any:
        if isinstance(effect, MirrorEvents):
            events = (replace(e, change=None) if isinstance(e.change, Redact) else e for e in effect.events)
            effect = replace(effect, events=tuple(events))
        return perform(effect)

    _around(server, keeping)


def keep_mirrors_of_the_removed(server: Server) -> None:
    """The mirror of a guild stays after its last local member has left."""

    def keeping(effect: StorageEffect[Any], perform: Perform) -> Any:
        if isinstance(effect, DropMirror):
            return None
        before = pickle.dumps(server.state) if isinstance(effect, MirrorEvents) else b""
        outcome = perform(effect)
        if not isinstance(effect, MirrorEvents) or not outcome.ended:
            return outcome
        state = server.tables._state = pickle.loads(before)
        log = state.logs[effect.guild_id]
        for event in effect.events[len(log) - effect.events[0].sequence + 1 :]:
            log.append(StoredEvent(effect.guild_id, event.sequence, event.event_id, event.wire, event.at_ms))
        return MirrorOutcome("ok", state.place_of(effect.guild_id))

    _around(server, keeping)


def deliver_to_the_removed(server: Server) -> None:
    """The owner keeps delivering after the last member of a server has left."""

    def going_on(effect: StorageEffect[Any], perform: Perform) -> Any:
        result = perform(effect)
        if isinstance(effect, RemoveMember | BanUser):
            for (_, guild_id), row in server.state.peer_guilds.items():
                if guild_id == effect.guild_id and row.purged_at_ms is None:
                    row.ended_at_ms = row.last_sequence = None
        return result

    _around(server, going_on)


def admit_the_banned(server: Server) -> None:
    """The owner does not check whether a joining user is banned."""

    def admitting(effect: StorageEffect[Any], perform: Perform) -> Any:
        if not isinstance(effect, JoinFromServer):
            return perform(effect)
        bans, server.state.bans = server.state.bans, {}
        try:
            return perform(effect)
        finally:
            server.state.bans = bans

    _around(server, admitting)


def begin_without_bans(server: Server) -> None:
    """A mirror has only the bans that log events report."""

    def beginning(effect: StorageEffect[Any], perform: Perform) -> Any:
        if isinstance(effect, StoreMirror) and effect.snapshot is not None:
            effect = replace(effect, snapshot=replace(effect.snapshot, bans=[]))
        return perform(effect)

    _around(server, beginning)


def _is_remote(server: Server, user_id: str) -> bool:
    user = server.state.users.get(user_id)
    return user is not None and user.origin is not None


def _around(server: Server, wrong: Callable[[StorageEffect[Any], Perform], Any]) -> None:
    perform = Server.tables_perform.__get__(server)
    server.tables_perform = lambda effect: wrong(effect, perform)  # type: ignore[method-assign]  # this is the bug


PLANTS = {
    plant.__name__: plant
    for plant in (
        move_cursors_before_the_answer, trust_the_home, begin_chains_at_each_receipt, forget_nonces_of_requests,
        forget_nonces_of_posts, keep_redacted_texts, keep_mirrors_of_the_removed, deliver_to_the_removed,
        admit_the_banned, begin_without_bans,
    )
}  # fmt: skip
