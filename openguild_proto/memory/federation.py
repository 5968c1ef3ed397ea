"""Other servers, their nonces, and this server's own keys, in memory."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import msgspec

from openguild_proto.effects.federation import (
    FederatedGuild,
    FindPeer,
    FindReadable,
    ListFederatedGuilds,
    ListGuildHomes,
    ListOwnKeys,
    ListPeers,
    NoteContact,
    OwnKey,
    Peer,
    PublishedKey,
    RecordOwnKey,
    RememberNonce,
    RevokeOwnKey,
    RuleServer,
    Ruling,
    StorePeer,
)
from openguild_proto.effects.performs import performs
from openguild_proto.memory.state import State

FORGOTTEN_AT_ONCE = 4


def in_order(keys: Iterable[PublishedKey]) -> tuple[PublishedKey, ...]:
    """Sort keys, newest first."""
    return tuple(sorted(keys, key=lambda key: (-key.not_before, key.key_id)))


@performs(FindPeer)
def find_peer(state: State, effect: FindPeer) -> Peer | None:
    return state.peers.get(effect.server)


def _change(state: State, server: str, **changes: object) -> None:
    peer = state.peers.get(server) or Peer(server)
    state.peers[server] = msgspec.structs.replace(peer, **changes)


@performs(StorePeer)
def store_peer(state: State, effect: StorePeer) -> None:
    known = state.peers.get(effect.server) or Peer(effect.server)
    keys = {key.key_id: key for key in known.keys}
    for key in effect.keys:
        before = keys.get(key.key_id)
        if before is None:
            keys[key.key_id] = key
        elif before.public_key == key.public_key:
            keys[key.key_id] = _latest(before, key)
    _change(state, effect.server, base_url=effect.base_url, checked_ms=effect.checked_ms, keys=in_order(keys.values()))


def _latest(before: PublishedKey, after: PublishedKey) -> PublishedKey:
    revoked = [at for at in (before.revoked_at, after.revoked_at) if at is not None]
    return msgspec.structs.replace(
        after,
        not_before=min(before.not_before, after.not_before),
        not_after=max(before.not_after, after.not_after),
        revoked_at=min(revoked, default=None),
    )


@performs(NoteContact)
def note_contact(state: State, effect: NoteContact) -> None:
    known = state.peers.get(effect.server) or Peer(effect.server)
    _change(state, effect.server, contacted_ms=max(effect.contacted_ms, known.contacted_ms))


@performs(RememberNonce)
def remember_nonce(state: State, effect: RememberNonce) -> bool:
    key = (effect.server, effect.nonce)
    if key in state.peer_nonces:
        return False
    for old in [old for old in islice(state.peer_nonces, FORGOTTEN_AT_ONCE) if state.peer_nonces[old] < effect.now_ms]:
        del state.peer_nonces[old]
    state.peer_nonces[key] = effect.until_ms
    return True


@performs(RecordOwnKey)
def record_own_key(state: State, effect: RecordOwnKey) -> OwnKey:
    known = state.own_keys.get(effect.key_id)
    if known is None:
        if len(state.own_keys) >= effect.at_most:
            return OwnKey.TOO_MANY
        known = PublishedKey(effect.key_id, effect.public_key, effect.now_ms, effect.not_after)
    elif known.public_key != effect.public_key or known.revoked_at is not None:
        return OwnKey.REFUSED
    not_after = max(known.not_after, effect.not_after)
    state.own_keys[effect.key_id] = msgspec.structs.replace(known, not_after=not_after)
    return OwnKey.IN_USE


@performs(ListOwnKeys)
def list_own_keys(state: State, effect: ListOwnKeys) -> tuple[PublishedKey, ...]:
    return in_order(state.own_keys.values())


@performs(RevokeOwnKey)
def revoke_own_key(state: State, effect: RevokeOwnKey) -> bool:
    known = state.own_keys.get(effect.key_id)
    if known is None or known.revoked_at is not None:
        return False
    state.own_keys[effect.key_id] = msgspec.structs.replace(known, revoked_at=effect.revoked_at)
    return True


@performs(ListPeers)
def list_peers(state: State, effect: ListPeers) -> tuple[Peer, ...]:
    return tuple(state.peers[server] for server in sorted(state.peers) if server > effect.after)[: effect.limit]


@performs(RuleServer)
def rule_server(state: State, effect: RuleServer) -> None:
    known = state.peers.get(effect.server) or Peer(effect.server)
    rulings = {ruling.guild_id or "": ruling for ruling in known.rulings}
    rulings.pop(effect.guild_id or "", None)
    if effect.standing is not None:
        rulings[effect.guild_id or ""] = Ruling(effect.standing, effect.reason, effect.guild_id)
    _change(state, effect.server, rulings=tuple(rulings[guild_id] for guild_id in sorted(rulings)))


@performs(ListFederatedGuilds)
def list_federated_guilds(state: State, effect: ListFederatedGuilds) -> tuple[FederatedGuild, ...]:
    ids = {guild_id for _, guild_id in state.peer_guilds}
    ids |= {guild_id for guild_id, guild in state.guilds.items() if guild.origin is not None}
    return tuple(_federated_guild(state, guild_id) for guild_id in sorted(ids))[: effect.limit]


def _federated_guild(state: State, guild_id: str) -> FederatedGuild:
    record = state.guilds.get(guild_id)
    mirrors = {peer: mirror for (peer, guild), mirror in sorted(state.peer_guilds.items()) if guild == guild_id}
    return FederatedGuild(
        guild_id,
        record.name if record is not None else None,
        record.origin if record is not None else None,
        tuple(peer for peer, mirror in mirrors.items() if mirror.ended_at_ms is None),
        tuple(
            peer for peer, mirror in mirrors.items() if mirror.ended_at_ms is not None and mirror.purged_at_ms is None
        ),
    )


@performs(ListGuildHomes)
def list_guild_homes(state: State, effect: ListGuildHomes) -> tuple[str, ...]:
    members = state.members.get(effect.guild_id, {})
    return tuple(sorted({origin for user_id in members if (origin := state.users[user_id].origin) is not None}))


@performs(FindReadable)
def find_readable(state: State, effect: FindReadable) -> str | None:
    channel = state.channels.get(effect.channel_id)
    if channel is None or channel.record.origin is not None:
        return None
    guild_id = channel.record.guild_id
    readers = {*state.members.get(guild_id, {}), *channel.roles}
    return guild_id if any(state.users[user_id].origin == effect.server for user_id in readers) else None
