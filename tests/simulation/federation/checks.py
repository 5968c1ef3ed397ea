"""The checks at the end of a run, when all faults are over and everything has settled."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from openguild_proto.effects.channels import ListUnread
from openguild_proto.effects.deliveries import FindBehind, FindEnded
from openguild_proto.memory.state import Channel
from openguild_proto.records import MessageState
from openguild_proto.schemas.events import parse_event

if TYPE_CHECKING:
    from tests.simulation.federation.scenario import Run
    from tests.simulation.federation.server import Server

MAX_NONCES = 5_000  # per run
ALL = 1_000_000


def is_level(run: Run) -> bool:
    """Return whether every server has all events due to it, and every owner knows which users have left."""
    return all(
        not server.tables.perform(FindBehind(peer=peer, limit=1)) and not server.tables.perform(FindEnded(peer=peer))
        for server in run.servers.values()
        for peer in run.servers
    ) and not any(server.state.pending_leaves for server in run.servers.values())


def check(run: Run) -> None:
    """Compare every mirror with its owner, and look for data that should be gone."""
    for owner in run.servers.values():
        for guild_id in [guild_id for guild_id, guild in owner.state.guilds.items() if guild.origin is None]:
            origins = {owner.state.users[user].origin for user in owner.state.members[guild_id]} - {None}
            for mirror in run.servers.values():
                if mirror is not owner:
                    _check_mirror(run, owner, mirror, guild_id, expected=mirror.name in origins)
        _check_deliveries(run, owner)
    for server in run.servers.values():
        for guild_id, guild in server.state.guilds.items():
            banned = server.state.bans.get(guild_id, {}).keys() & server.state.members[guild_id].keys()
            if banned:
                run.violation(f"{sorted(banned)} are banned from {guild_id}, and members of it at {server.name}")
            if guild.origin is not None and guild_id not in run.servers[guild.origin].state.guilds:
                run.violation(f"{server.name} mirrors {guild_id}, which is no more")
    _check_posts(run)


# --- mirrors -----------------------------------------------------------------------------------------


def _check_mirror(run: Run, owner: Server, mirror: Server, guild_id: str, *, expected: bool) -> None:
    def wrong(text: str) -> None:
        run.violation(f"{guild_id} of {owner.name} at {mirror.name}: {text}")

    row = owner.state.peer_guilds.get((mirror.name, guild_id))
    if expected != (row is not None and row.ended_at_ms is None):
        wrong(f"the owner delivers: {not expected}, with members there: {expected}")
    if expected != (guild_id in mirror.state.guilds):
        wrong(f"there is a mirror: {not expected}, with members there: {expected}")
    if not expected or guild_id not in mirror.state.guilds:
        return
    base = mirror.state.mirrors[guild_id].base
    there, here = owner.state.place_of(guild_id), mirror.state.place_of(guild_id)
    if there != here:
        wrong(f"the guild's log stands at {here}, and at {there}")
    _compare_events(wrong, "the guild's log", owner.state.logs[guild_id], mirror.state.logs[guild_id], base)
    for what, look in (("members", _members), ("channels", _channels), ("bans", _bans)):
        if look(owner, guild_id) != look(mirror, guild_id):
            wrong(f"{what} are {look(mirror, guild_id)}, and {look(owner, guild_id)}")
    for channel in owner.state.channels_of_guild(guild_id):
        other = mirror.state.channels.get(channel.record.channel_id)
        if other is not None:
            _compare_channels(wrong, mirror, channel, other)
    _compare_unread(wrong, owner, mirror, guild_id)


def _compare_events(wrong: Any, what: str, there: list[Any], here: list[Any], base: int) -> None:
    if len(there) != len(here):
        wrong(f"{what} has {len(here)} events of {len(there)}")
    for one, other in zip(there[base:], here[base:], strict=False):
        if one != other:
            wrong(f"{what} differs at {one.sequence}: {other} is {one}")
            return


def _compare_channels(wrong: Any, mirror: Server, there: Channel, here: Channel) -> None:
    channel_id = here.record.channel_id
    base = mirror.state.mirrors[channel_id].base
    _compare_events(wrong, channel_id, there.events, here.events, base)
    for sequence, message in there.messages.items():
        if sequence > base and _shown(here.messages.get(sequence)) != _shown(message):
            wrong(f"message {sequence} of {channel_id} is {here.messages.get(sequence)}, and {message}")
            return
    roles = [{user_id: held.role for user_id, held in channel.roles.items()} for channel in (there, here)]
    if roles[0] != roles[1]:
        wrong(f"roles in {channel_id} are {roles[1]}, and {roles[0]}")


def _shown(message: MessageState | None) -> MessageState | None:
    """Drop the edits of a redacted message: a mirror that began after the redaction does not know them."""
    taken = message is not None and message.redacted_by is not None
    return replace(message, edited_at_ms=None, versions=1) if message is not None and taken else message


def _compare_unread(wrong: Any, owner: Server, mirror: Server, guild_id: str) -> None:
    for user_id in mirror.state.members[guild_id]:
        if mirror.state.users[user_id].origin is not None:
            continue
        for shown in mirror.tables.perform(ListUnread(user_id=user_id, limit=ALL)):
            channel = owner.state.channels.get(shown.channel_id)
            if channel is None or channel.record.guild_id != guild_id:
                continue
            behind = channel.senders[shown.last_read_sequence :]
            unread = sum(sender not in {"", user_id} for sender in behind)
            if (shown.unread, shown.latest_sequence) != (unread, len(channel.events)):
                wrong(f"{user_id} has {shown} of {unread} unread in {len(channel.events)}")


def _members(server: Server, guild_id: str) -> dict[str, Any]:
    users = server.state.users
    return {
        user_id: (held.role, held.joined_at_ms, users[user_id].username, users[user_id].origin or server.name)
        for user_id, held in sorted(server.state.members[guild_id].items())
    }


def _bans(server: Server, guild_id: str) -> list[Any]:
    return sorted(server.state.bans.get(guild_id, {}).items())


def _channels(server: Server, guild_id: str) -> list[Any]:
    records = (channel.record for channel in server.state.channels_of_guild(guild_id))
    return [(r.channel_id, r.name, r.topic, r.position, r.created_at_ms, r.epoch) for r in records]


# --- deliveries --------------------------------------------------------------------------------------


def _check_deliveries(run: Run, server: Server) -> None:
    deliveries, state = server.deliveries, server.state
    for name, peer in deliveries.peers.items():
        if (
            peer._behind or peer._held or peer._ended
        ):  # a peer without pending events may wait for an hour before the next attempt
            run.violation(f"{server.name} has not done with {name}: {peer.phase.value} {peer._held} {peer.reason}")
    running = deliveries.procedures._asked
    if len(running) > len(deliveries.peers) + 3:
        run.violation(f"{server.name}: {len(running)} effects of the deliveries are under way")
    for (peer_name, guild_id), row in state.peer_guilds.items():
        if row.ended_at_ms is not None and row.purged_at_ms is None:
            run.violation(f"{server.name} has not heard that {peer_name} has purged {guild_id}")
    for peer_name, log_id in state.peer_cursors:
        channel = state.channels.get(log_id)
        guild_id = channel.record.guild_id if channel is not None else log_id
        row = state.peer_guilds.get((peer_name, guild_id))
        if row is None or row.purged_at_ms is not None:
            run.violation(f"{server.name} keeps a cursor of {peer_name} in {log_id}")
    if len(state.peer_nonces) > MAX_NONCES:
        run.violation(f"{server.name} keeps {len(state.peer_nonces)} nonces")


# --- posts -------------------------------------------------------------------------------------------


def _check_posts(run: Run) -> None:
    texts: Counter[str] = Counter()
    for server in run.servers.values():
        for channel in server.state.channels.values():
            if channel.record.origin is None:
                for event in channel.events:
                    content = parse_event(event.wire).content
                    if content.get("content", "").startswith("text "):
                        texts[content["content"]] += 1
    for text, count in texts.items():
        if count > 1:
            run.violation(f"{text!r} was posted once, and is there {count} times")
    for post in run.books.posted:
        server = run.servers[post.owner]
        place = server.state.event_places.get(post.event_id)
        channel = server.state.channels.get(post.channel_id)
        may_be_lost = post.began is not None and post.began <= server.restored_at
        if channel is not None and place is None and not may_be_lost:
            run.violation(f"{post.event_id} in {post.channel_id} was acknowledged, and is not there")
    for guild_id, name in run.books.asked_once:
        made = [
            channel
            for server in run.servers.values()
            for channel in server.state.channels_of_guild(guild_id)
            if channel.record.name == name and channel.record.origin is None
        ]
        if len(made) > 1:
            run.violation(f"channel {name} was asked for once, and made {len(made)} times")
