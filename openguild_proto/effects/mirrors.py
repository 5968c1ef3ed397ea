"""Effects of federation on guilds: what their owner keeps of mirrors, and what a mirror keeps (PROTOCOL 16.5 to 16.7)."""

from __future__ import annotations

from openguild_proto.effects.base import StorageEffect
from openguild_proto.mirror_records import MirroredEvent, MirroredMember, RemoteUser, Snapshot, place_of
from openguild_proto.records import LimitReached, LogPlace, MemberChange, Record, StoredEvent

# --- of the owner ----------------------------------------------------------------------------------


class RemoteJoin(Record, frozen=True):
    """A remote user is a member. `place`: of the guild's log, their join included. `snapshot`: of that place, where it was asked
    for.
    """

    guild_id: str
    member: MirroredMember
    place: LogPlace
    snapshot: Snapshot | None


def shown_in(joined: RemoteJoin, snapshot: Snapshot | None) -> RemoteJoin | None:
    """Return a join with the snapshot that was read behind it, and as that shows it. None: the user is a member no more."""
    members = snapshot.members if snapshot is not None else ()
    member = next((each for each in members if each.user_id == joined.member.user_id), None)
    if snapshot is None or member is None:
        return None
    return RemoteJoin(snapshot.guild_id, member, place_of(snapshot), snapshot)


class JoinFromServer(StorageEffect[RemoteJoin | LimitReached | None], frozen=True):
    """Let a user of `peer` join as `AcceptInvite` does, and begin to deliver the guild's logs to `peer` from their heads, in one
    transaction. None: the invite is not valid, or the user was a member no more when the snapshot was read. Raises Refusal
    `id_taken`: the id is that of a user of another server.
    """

    peer: str
    user: RemoteUser
    code: str
    role: str
    now_ms: int
    limit: int
    wants_snapshot: bool


class ReadSnapshot(StorageEffect[Snapshot | None], frozen=True):
    """Read a guild for a mirror that begins anew. None: `peer` mirrors no such guild.

    Cursors of `peer` that count in another epoch move to the heads. The others stay: the answer may get lost, and what the mirror
    says at the next delivery moves them.
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
    """Store a guild of `origin`, with its members, channels and logs that begin at their heads. One that is there stays as it is,
    unless it is of another epoch or `is_behind` the snapshot: then it begins anew. Raises Refusal `id_taken` for ids of others.

    `snapshot` None: the guild is said to be there; False: it is not, or `is_behind`. `joined`: a user of this server who has
    asked to join, and is a member at the place `stands` of the guild's log. They are not admitted where the mirror knows that they
    have gone since. False: it cannot know, because it begins after that. Nothing is stored where the answer is False. Users of
    this server are members of a mirror in no other way.
    """

    origin: str
    guild_id: str
    snapshot: Snapshot | None
    now_ms: int
    joined: MirroredMember | None = None
    stands: LogPlace | None = None


def is_behind(mirror: LogPlace, owner: LogPlace) -> bool:
    """Return whether a mirror lacks more of a guild's log than the one event of a join.

    Among these events may be that the user has left before they joined again.
    """
    return mirror.epoch != owner.epoch or mirror.sequence + 1 < owner.sequence


REPEATED = "an event of it stands at another place of the log"
NOT_OURS = "an event of it is of a user of the mirror, and not of their server"
ANOTHER = "another event of it stands here at the same place: was the database of its owner restored?"
FORKED = "its receipt chain does not follow that of the mirror"
"""Reasons for which a mirror refuses a part of a delivery."""


class MirrorOutcome(Record, frozen=True):
    """`status` as of MirrorPlace. `events`: those that are new here. `ended`: no user of this server is a member any more, and
    nothing is left of the guild."""

    status: str
    place: LogPlace | None = None
    events: tuple[StoredEvent, ...] = ()
    ended: bool = False
    reason: str | None = None  # why it is refused


class MirrorEvents(StorageEffect[MirrorOutcome], frozen=True):
    """Append events to a mirrored log at their places, and apply what they say, in one transaction.

    Events that are there are skipped. Nothing is stored where one before the first is missing: status `ok` with the place.
    """

    origin: str
    guild_id: str
    log_id: str
    epoch: int
    events: tuple[MirroredEvent, ...]
    chain: bytes | None = None
    receipt: bytes | None = None


class FindMirrorPlace(StorageEffect[LogPlace | None], frozen=True):
    """Find where the mirror of a log of `origin` stands; None: it is not mirrored."""

    origin: str
    log_id: str


class FindNextMirror(StorageEffect[str | None], frozen=True):
    """Find the mirrored guild of `origin` that follows `past` by id, or the first one. None: none follows."""

    origin: str
    past: str | None


class DropMirror(StorageEffect[bool], frozen=True):
    """Delete the mirror of a guild of `origin`, with everything in it, if there is one. Its members of this server are told.
    False: it stays, for it stands at another place than `place`: it has begun anew for somebody who has joined meanwhile.
    """

    origin: str
    guild_id: str
    now_ms: int
    place: LogPlace | None = None  # where its guild's log stood when it was found to have ended; None: anywhere


# --- partings: users whom an owner may still count as members ---------------------------------------------------

KEPT_MS = 30 * 86_400_000  # ours: a parting, of whose owner nothing is heard
TOLD_MS = 10_000  # ours: in which a request that tells an owner of a parting has come to an end


class Parting(Record, frozen=True):
    """A user of this server who is no member of a mirrored guild, while its owner may think so since `due_ms` or before."""

    guild_id: str
    user: RemoteUser
    due_ms: int


class LeaveMirror(StorageEffect[MemberChange], frozen=True):
    """Let a user of this server leave a guild of `origin` here, and note the parting. The mirror goes with the last of them.

    DONE, NOT_MEMBER (also where there is no such mirror), or LAST_OWNER. `even_last`: the last owner leaves, too.
    """

    origin: str
    guild_id: str
    user_id: str
    now_ms: int
    even_last: bool = False


class NoteParting(StorageEffect[bool | None], frozen=True):
    """Note before a join that its answer may be lost: from `due_ms` on it is undone, unless the user is a member here.

    False: it was noted before, of an earlier join perhaps, which the owner may still admit. None: nothing is noted, for at
    `now_ms` the owner is just being told of an earlier parting (`ClaimParting`), and would undo the join.
    """

    origin: str
    guild_id: str
    user_id: str
    due_ms: int
    now_ms: int | None = None


class ClaimParting(StorageEffect[bool], frozen=True):
    """Make a parting due again in TOLD_MS, before the owner is told. False: it was noted again since, or is no more."""

    origin: str
    parting: Parting
    now_ms: int


class NoteMistaken(StorageEffect[None], frozen=True):
    """Note which of `user_ids`, members of a guild according to its owner, are not members of it here.

    Others than users of this server are left out. `MirrorEvents` does the same for the events of joins. A join under way goes
    on: what was noted before it stays due when it was.
    """

    origin: str
    guild_id: str
    user_ids: tuple[str, ...]
    now_ms: int


class FindPartings(StorageEffect[tuple[Parting, ...]], frozen=True):
    """Find partings of guilds of `origin` that are due, of users who are no members here."""

    origin: str
    now_ms: int
    limit: int


class EndParting(StorageEffect[None], frozen=True):
    """Forget a parting: the owner knows it. One that was noted again meanwhile stays."""

    origin: str
    parting: Parting
