"""Effects of federation on guilds: what the owner stores about mirrors, and what a mirror stores (PROTOCOL 16.5 to 16.7)."""

from __future__ import annotations

from openguild_proto.effects.base import StorageEffect
from openguild_proto.mirror_records import MirroredEvent, MirroredMember, RemoteUser, Snapshot, place_of
from openguild_proto.records import LimitReached, LogPosition, MemberChange, Record, StoredEvent

# --- the owner's side ------------------------------------------------------------------------------


class RemoteJoin(Record, frozen=True):
    """A remote user is a member. `place`: of the guild's log, including their join. `snapshot`: at that position, if requested."""

    guild_id: str
    member: MirroredMember
    place: LogPosition
    snapshot: Snapshot | None


def shown_in(joined: RemoteJoin, snapshot: Snapshot | None) -> RemoteJoin | None:
    """Return the join with a snapshot that was read after it, and as the snapshot shows it.

    None: there is no snapshot, or the user is no longer a member.
    """
    members = snapshot.members if snapshot is not None else ()
    member = next((each for each in members if each.user_id == joined.member.user_id), None)
    if snapshot is None or member is None:
        return None
    return RemoteJoin(snapshot.guild_id, member, place_of(snapshot), snapshot)


class JoinFromServer(StorageEffect[RemoteJoin | LimitReached | None], frozen=True):
    """Let a user of `peer` join as `AcceptInvite` does, and start to deliver the guild's logs to `peer` from their heads.

    One transaction. None: the invite is not valid, or the user was no longer a member when the snapshot was read. Raises
    Refusal `id_taken` if the id belongs to a user of another server.
    """

    peer: str
    user: RemoteUser
    code: str
    role: str
    now_ms: int
    limit: int
    wants_snapshot: bool


class ReadSnapshot(StorageEffect[Snapshot | None], frozen=True):
    """Read a guild for a mirror that restarts. None: `peer` does not mirror this guild.

    Cursors of `peer` in another epoch move to the heads. The others stay, because the response may get lost; the mirror's
    response to the next delivery moves them.
    """

    peer: str
    guild_id: str


class KnowRemoteUser(StorageEffect[None], frozen=True):
    """Store the names of a user of `peer`. Raises Refusal 404 for an unknown user, `id_taken` for one of another server."""

    peer: str
    user: RemoteUser
    now_ms: int


# --- the mirror's side -----------------------------------------------------------------------------


class StoreMirror(StorageEffect[bool], frozen=True):
    """Store a guild of `origin` with its members and channels. Its logs begin here at their heads.

    An existing mirror is kept, unless its epoch differs or it `is_behind` the snapshot: then it restarts from the snapshot.
    Raises Refusal `id_taken` for ids that belong to others. `snapshot` None: the mirror must exist and not be behind, else
    False.

    `joined`: a user of this server whose join the owner has accepted, at the position `stands` of the guild's log. They are not
    added if the mirror knows that they have left since. False if the mirror begins after that position and cannot know. If the
    result is False nothing is stored. Users of this server become members of a mirror in no other way.
    """

    origin: str
    guild_id: str
    snapshot: Snapshot | None
    now_ms: int
    joined: MirroredMember | None = None
    stands: LogPosition | None = None


class PositionKey(Record, frozen=True):
    """The read position of a user in a channel."""

    channel_id: str
    user_id: str


class ClearedPart(Record, frozen=True):
    """A part of `ClearMirror`, after which more is to be done. `past`: for the next part."""

    past: PositionKey | None = None


class ClearMirror(StorageEffect[ClearedPart | None], frozen=True):
    """Clear a mirror that `snapshot` is going to replace, so that `StoreMirror` holds its locks briefly.

    Deletes at most `limit` events: the oldest, so that the mirror's logs begin later. Once there are none, at most `limit` read
    positions after `past` move to the heads of the snapshot. None: nothing is left to do, or there is no mirror of `origin`
    that is behind the snapshot.
    """

    origin: str
    snapshot: Snapshot
    limit: int
    past: PositionKey | None = None


def is_behind(mirror: LogPosition, owner: LogPosition) -> bool:
    """Return whether a mirror lacks more of a guild's log than the one event of a join.

    The missing events may say that the user had left before they joined again.
    """
    return mirror.epoch != owner.epoch or mirror.sequence + 1 < owner.sequence


REPEATED = "one of its events is stored at another position of the log"
NOT_OURS = "one of its events is from a user of the mirror, but not signed by their server"
ANOTHER = "another event is stored here at the same position: was the owner's database restored?"
FORKED = "its receipt chain does not continue that of the mirror"
"""Reasons for which a mirror refuses part of a delivery."""


class MirrorOutcome(Record, frozen=True):
    """The result of `MirrorEvents`. `status`: as in MirrorPosition. `events`: the new ones.

    `ended`: no user of this server is a member any more, and the mirror was deleted.
    """

    status: str
    place: LogPosition | None = None
    events: tuple[StoredEvent, ...] = ()
    ended: bool = False
    reason: str | None = None  # why it is refused


class MirrorEvents(StorageEffect[MirrorOutcome], frozen=True):
    """Append events to a mirrored log at their sequences, and apply their effects, in one transaction.

    Existing events are skipped. If an event before the first is missing, nothing is stored: status `ok` with the position.
    """

    origin: str
    guild_id: str
    log_id: str
    epoch: int
    events: tuple[MirroredEvent, ...]
    chain: bytes | None = None
    receipt: bytes | None = None


class FindMirrorHead(StorageEffect[LogPosition | None], frozen=True):
    """Find the head of a mirrored log of `origin`. None: it is not mirrored."""

    origin: str
    log_id: str


class FindNextMirror(StorageEffect[str | None], frozen=True):
    """Find the first mirrored guild of `origin` by id, after `past` if given. None: no more."""

    origin: str
    past: str | None


class DropMirror(StorageEffect[bool], frozen=True):
    """Delete the mirror of a guild of `origin`, if there is one, and notify its members of this server.

    False: it is kept, because it is not at `place`: it has restarted for a user who has joined meanwhile.
    """

    origin: str
    guild_id: str
    now_ms: int
    place: LogPosition | None = None  # head of the guild's log when it was found to have ended; None: any


# --- pending leaves: users who have left here, while the owner may still count them as members ----------------------

KEPT_MS = 30 * 86_400_000  # ours: a pending leave is deleted when its owner has been silent for this long
TOLD_MS = 10_000  # ours: a request that reports a pending leave to the owner has ended by then


class PendingLeave(Record, frozen=True):
    """A user of this server who is not a member of a mirrored guild here, while the owner may count them as one since `due_ms`."""

    guild_id: str
    user: RemoteUser
    due_ms: int


class LeaveMirror(StorageEffect[MemberChange], frozen=True):
    """Let a user of this server leave a guild of `origin` here, and store a pending leave. Deletes the mirror with its last member.

    Returns DONE, NOT_MEMBER (also if there is no such mirror), or LAST_OWNER. `even_last`: let the last owner leave, too.
    """

    origin: str
    guild_id: str
    user_id: str
    now_ms: int
    even_last: bool = False


class NotePendingLeave(StorageEffect[bool | None], frozen=True):
    """Store a pending leave before a join, whose response may get lost: from `due_ms` on the join is undone for a non-member.

    False: there already was one, perhaps of an earlier join that the owner may still accept. None: nothing is stored, because
    the owner is being told of an earlier pending leave at `now_ms` (`ClaimPendingLeave`) and would undo the join.
    """

    origin: str
    guild_id: str
    user_id: str
    due_ms: int
    now_ms: int | None = None


class ClaimPendingLeave(StorageEffect[bool], frozen=True):
    """Postpone a pending leave by TOLD_MS, before the owner is told. False: it was stored again since, or is gone."""

    origin: str
    pending: PendingLeave
    now_ms: int


class NoteMistaken(StorageEffect[None], frozen=True):
    """Store pending leaves of those `user_ids` whom the owner counts as members of the guild, but who are not members here.

    Ignores users of other servers. `MirrorEvents` does the same for the events of joins. A join in progress goes on: the
    pending leave stored before it stays due at the same time.
    """

    origin: str
    guild_id: str
    user_ids: tuple[str, ...]
    now_ms: int


class FindPendingLeaves(StorageEffect[tuple[PendingLeave, ...]], frozen=True):
    """Find due pending leaves of guilds of `origin`, of users who are not members here."""

    origin: str
    now_ms: int
    limit: int


class EndPendingLeave(StorageEffect[None], frozen=True):
    """Delete a pending leave that the owner has confirmed, unless it was stored again meanwhile."""

    origin: str
    pending: PendingLeave
