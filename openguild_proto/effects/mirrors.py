"""Effects of federation on guilds: what their owner keeps of mirrors, and what a mirror keeps (PROTOCOL 16.5 to 16.7)."""

from __future__ import annotations

from openguild_proto.effects.base import StorageEffect
from openguild_proto.mirror_records import MirroredEvent, MirroredMember, RemoteUser, Snapshot, place_of
from openguild_proto.records import LimitReached, LogPlace, MemberChange, Record, StoredEvent

# --- of the owner ----------------------------------------------------------------------------------


class RemoteJoin(Record, frozen=True):
    """A remote user is a member. `place`: in the guild's log, at or after the join. `snapshot`: the guild at this place, if the
    request asked for it.
    """

    guild_id: str
    member: MirroredMember
    place: LogPlace
    snapshot: Snapshot | None


def shown_in(joined: RemoteJoin, snapshot: Snapshot | None) -> RemoteJoin | None:
    """Return a join with the snapshot that was read after it, and with the member of the snapshot. None: no longer a member."""
    members = snapshot.members if snapshot is not None else ()
    member = next((each for each in members if each.user_id == joined.member.user_id), None)
    if snapshot is None or member is None:
        return None
    return RemoteJoin(snapshot.guild_id, member, place_of(snapshot), snapshot)


class JoinFromServer(StorageEffect[RemoteJoin | LimitReached | None], frozen=True):
    """Let a user of `peer` join as `AcceptInvite` does, and start to deliver the guild's logs to `peer` from their heads, in one
    transaction. None: the invite is not valid, or the user was no longer a member when the snapshot was read. Raises Refusal
    `id_taken` if a user of another server has the id.
    """

    peer: str
    user: RemoteUser
    code: str
    role: str
    now_ms: int
    limit: int
    wants_snapshot: bool


class ReadSnapshot(StorageEffect[Snapshot | None], frozen=True):
    """Read a guild for a mirror that starts again. None: `peer` does not mirror the guild.

    Cursors of `peer` in another epoch move to the heads. The others stay, because the answer may get lost: the mirror's answer to
    the next delivery moves them.
    """

    peer: str
    guild_id: str


class KnowRemoteUser(StorageEffect[None], frozen=True):
    """Note the names of a user of `peer`. Raises Refusal 404 for a user who is not known here, `id_taken` for one of another
    server."""

    peer: str
    user: RemoteUser
    now_ms: int


# --- of a mirror -----------------------------------------------------------------------------------


class StoreMirror(StorageEffect[bool], frozen=True):
    """Store a guild of `origin`, with its members, its channels and logs that start at their heads. An existing mirror stays as it
    is, unless it has another epoch or `is_behind` the snapshot: then it starts again. Raises Refusal `id_taken` for ids that
    belong to another server.

    `snapshot` None: the mirror should already exist; False: it does not, or it `is_behind`. `joined`: a user of this server who
    asked to join and is a member at the place `stands` of the guild's log. The user is not admitted if the mirror knows of a
    later end of the membership. False: it cannot know this, because it starts after `stands`. When the result is False, nothing
    is stored. Users of this server become members of a mirror in no other way.
    """

    origin: str
    guild_id: str
    snapshot: Snapshot | None
    now_ms: int
    joined: MirroredMember | None = None
    stands: LogPlace | None = None


def is_behind(mirror: LogPlace, owner: LogPlace) -> bool:
    """Return whether a mirror is missing more events of a guild's log than one join.

    The missing events may include an earlier leave of the user who joins.
    """
    return mirror.epoch != owner.epoch or mirror.sequence + 1 < owner.sequence


REPEATED = "an event of it stands at another place of the log"
NOT_OURS = "an event of it is of a user of the mirror, and not of their server"
ANOTHER = "another event of it stands here at the same place: was the database of its owner restored?"
FORKED = "its receipt chain does not follow that of the mirror"
"""Reasons for which a mirror refuses a part of a delivery."""


class MirrorOutcome(Record, frozen=True):
    """`status`: as in MirrorPlace. `events`: the events that were new. `ended`: no user of this server is a member any more, and
    the mirror is deleted."""

    status: str
    place: LogPlace | None = None
    events: tuple[StoredEvent, ...] = ()
    ended: bool = False
    reason: str | None = None  # why it is refused


class MirrorEvents(StorageEffect[MirrorOutcome], frozen=True):
    """Append events to a mirrored log at their places, and apply their effects, in one transaction.

    Existing events are skipped. If events before the first one are missing, nothing is stored: status `ok` with the place.
    """

    origin: str
    guild_id: str
    log_id: str
    epoch: int
    events: tuple[MirroredEvent, ...]
    chain: bytes | None = None
    receipt: bytes | None = None


class FindMirrorPlace(StorageEffect[LogPlace | None], frozen=True):
    """Find the place of the mirror of a log of `origin`; None: the log is not mirrored."""

    origin: str
    log_id: str


class FindNextMirror(StorageEffect[str | None], frozen=True):
    """Find the mirrored guild of `origin` that follows `past` by id, or the first one. None: none follows."""

    origin: str
    past: str | None


class DropMirror(StorageEffect[bool], frozen=True):
    """Delete the mirror of a guild of `origin` with all its data, if it exists. Members on this server are notified. False: the
    mirror is at another place than `place`, so it stays: it has started again for a user who joined since.
    """

    origin: str
    guild_id: str
    now_ms: int
    place: LogPlace | None = None  # of the guild's log, when it was found to have ended; None: any place


# --- partings: users whom an owner may still count as members ---------------------------------------------------

KEPT_MS = 30 * 86_400_000  # ours: how long a parting is kept if its owner does not answer
TOLD_MS = 10_000  # ours: after this time, a request that reports a parting to the owner has ended


class Parting(Record, frozen=True):
    """A user of this server who is not a member of a mirrored guild, but whom the owner may still count as one. Due at `due_ms`."""

    guild_id: str
    user: RemoteUser
    due_ms: int


class LeaveMirror(StorageEffect[MemberChange], frozen=True):
    """Let a user of this server leave a guild of `origin` here, and note the parting. With the last member, the mirror is deleted.

    DONE, NOT_MEMBER (also without such a mirror), or LAST_OWNER. `even_last`: the last owner may leave, too.
    """

    origin: str
    guild_id: str
    user_id: str
    now_ms: int
    even_last: bool = False


class NoteParting(StorageEffect[bool | None], frozen=True):
    """Note before a join that its answer may get lost. From `due_ms` on the join is undone, unless the user is a member here.

    False: this was already noted, perhaps for an earlier join that the owner may still accept. None: nothing was noted, because
    at `now_ms` an earlier parting is being reported to the owner (`ClaimParting`), which would undo the join.
    """

    origin: str
    guild_id: str
    user_id: str
    due_ms: int
    now_ms: int | None = None


class ClaimParting(StorageEffect[bool], frozen=True):
    """Make a parting due again in TOLD_MS, before it is reported to the owner. False: it was noted again since, or is gone."""

    origin: str
    parting: Parting
    now_ms: int


class NoteMistaken(StorageEffect[None], frozen=True):
    """Note which of `user_ids`, members of a guild according to its owner, are not members of it here.

    Only users of this server count. `MirrorEvents` does the same for the events of joins. A join under way continues: a parting
    that was noted before it keeps its due time.
    """

    origin: str
    guild_id: str
    user_ids: tuple[str, ...]
    now_ms: int


class FindPartings(StorageEffect[tuple[Parting, ...]], frozen=True):
    """Find due partings of guilds of `origin`, of users who are not members here."""

    origin: str
    now_ms: int
    limit: int


class EndParting(StorageEffect[None], frozen=True):
    """Forget a parting that the owner knows. If it was noted again since, it stays."""

    origin: str
    parting: Parting
