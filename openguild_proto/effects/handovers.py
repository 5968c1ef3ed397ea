"""Effects of handing a guild over to another server: of the owner, of the server that takes it, of mirrors (PROTOCOL 16.10)."""

from __future__ import annotations

from openguild_proto.effects.base import Effect, StorageEffect
from openguild_proto.mirror_records import Handover, HistoricEvent, PassedInvite, PassedLog, Tenure
from openguild_proto.records import Author, Record

# --- what is known of owners -----------------------------------------------------------------------


class FindTenure(StorageEffect[Tenure | None], frozen=True):
    """Find whose a guild is that is here; None: it is not here."""

    guild_id: str


class ListHandovers(StorageEffect[tuple[Handover, ...]], frozen=True):
    """List the hand-overs of a guild that this server has made or followed, by term. The guild may be gone."""

    guild_id: str


class FollowHandover(StorageEffect[bool], frozen=True):
    """Note that a guild which `handover.owner` owns, perhaps this server, is another one's now; it is a mirror from then on.

    False: that server is not its owner, or its term is not the one before.
    """

    handover: Handover


class SilentOwner(Record, frozen=True):
    """A server that has not been heard of for long, and how many of its guilds are mirrored here."""

    server: str
    guilds: int


class FindSilentOwners(StorageEffect[tuple[SilentOwner, ...]], frozen=True):
    """Find owners of mirrored guilds that were last heard of before `before_ms`, those with the most guilds first."""

    before_ms: int
    limit: int


# --- of the owner ----------------------------------------------------------------------------------


class SetSuccessor(StorageEffect[bool], frozen=True):
    """Keep the statement for when this server is lost, or revoke the one before, and raise the guild's serial to `serial`.

    Only an owner of the guild may: Refusal 403. False: the serial is no higher than the one before.
    """

    author: Author
    guild_id: str
    handover: Handover | None
    serial: int
    now_ms: int


class FindSuccession(StorageEffect[Handover | None], frozen=True):
    """Find the statement that counts for a guild of this server; None: there is none."""

    turns_of = "reader_id"

    guild_id: str
    reader_id: str | None = None


class Move(Record, frozen=True):
    """A guild that is being moved. `handover`: when it is no longer this server's. `note`: what was heard last."""

    guild_id: str
    to: str
    began_ms: int
    handover: Handover | None = None
    note: str = ""


class BeginMove(StorageEffect[str | None], frozen=True):
    """Note that a guild is to be moved; the server `to` may copy its history from now on. Idempotent. A text: why it cannot be."""

    guild_id: str
    to: str
    now_ms: int


class EndMove(StorageEffect[bool], frozen=True):
    """Forget a move: `done`, or one whose guild is still this server's. False: there is none, or it cannot be taken back."""

    guild_id: str
    done: bool


class NoteMove(StorageEffect[None], frozen=True):
    """Note what was heard of a move."""

    guild_id: str
    note: str


class ListMoves(StorageEffect[tuple[Move, ...]], frozen=True):
    """List the guilds that are being moved."""


class HandOver(StorageEffect[str | None], frozen=True):
    """Hand a guild over that is being moved: it is a mirror from then on, and nothing is appended to its logs here any more.

    A text: why not now. The other server must have a member, and the guild's own log whole: it has it up to `sequence`.
    """

    handover: Handover
    sequence: int


class PassedGuild(Record, frozen=True):
    """The state of a guild, beside its logs, that the server taking it needs."""

    logs: tuple[PassedLog, ...]
    invites: tuple[PassedInvite, ...]


class ReadPassed(StorageEffect[PassedGuild], frozen=True):
    """Read where the logs of a guild end, and its invites."""

    guild_id: str


class HistoryLine(Record, frozen=True):
    """An event as the owner has it."""

    sequence: int
    wire: bytes
    at_ms: int
    nonce: str | None
    fingerprint: bytes


class LogHistory(Record, frozen=True):
    """A page of a log's history."""

    guild_id: str
    epoch: int
    head: int
    lines: tuple[HistoryLine, ...]


class ReadLogHistory(StorageEffect[LogHistory | None], frozen=True):
    """Read events of a log after a sequence, of a guild that is being moved to `peer`. None: it is not."""

    peer: str
    log_id: str
    after: int
    limit: int


# --- of the server that takes it -------------------------------------------------------------------


class LogCopy(Record, frozen=True):
    """How much of a log of a mirrored guild is here. `copied`: up to where with its history and nonces."""

    log_id: str
    epoch: int
    head: int
    base: int
    copied: int


class FindCopies(StorageEffect[tuple[LogCopy, ...] | None], frozen=True):
    """Find what is here of the logs of a guild of `owner`, the guild's own first; None: it is not mirrored."""

    owner: str
    guild_id: str


class StageHistory(StorageEffect[str | None], frozen=True):
    """Keep events of a mirrored log aside, which follow what is copied of it. Others change nothing. A text: why it is refused."""

    owner: str
    log_id: str
    events: tuple[HistoricEvent, ...]


class AbsorbHistory(StorageEffect[None], frozen=True):
    """Make what was kept aside part of a mirrored log, if it begins below its base and reaches up to it, and take over nonces.

    The log is whole then.
    """

    owner: str
    log_id: str


class StartAbsorbing(Effect[None], frozen=True):
    """Begin `AbsorbHistory` of a log that is to be stored anew, which takes longer than a request may, unless it is under way."""

    owner: str
    log_id: str


class TakeGuild(StorageEffect[bool], frozen=True):
    """Own a mirrored guild from now on; its logs go on in the epoch `epoch`, and are delivered to all servers with members.

    Or go on with one that this server owns in an earlier term, which another owner has given up to it. Idempotent.
    `logs`: where they must stand, whole; None: they go on from where they are. False: they do not stand there.
    `former`: hand-overs from before, to be kept for servers that know an earlier owner.
    """

    handover: Handover
    epoch: int
    logs: tuple[PassedLog, ...] | None
    invites: tuple[PassedInvite, ...]
    now_ms: int
    former: tuple[Handover, ...] = ()
