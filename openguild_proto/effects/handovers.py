"""Effects for handing a guild over to another server: by the owner, the new owner, and mirrors (PROTOCOL 16.10)."""

from __future__ import annotations

from openguild_proto.effects.base import Effect, StorageEffect
from openguild_proto.mirror_records import Handover, HistoricEvent, Ownership, TransferredInvite, TransferredLog
from openguild_proto.records import Author, Record

# --- owners ----------------------------------------------------------------------------------------


class FindOwnership(StorageEffect[Ownership | None], frozen=True):
    """Find the owner of a guild that this server owns or mirrors. None: it does neither."""

    guild_id: str


class ListHandovers(StorageEffect[tuple[Handover, ...]], frozen=True):
    """List the hand-overs of a guild that this server has issued or followed, by term. The guild may be gone."""

    guild_id: str


class FollowHandover(StorageEffect[bool], frozen=True):
    """Make a guild of `handover.owner`, perhaps this server, one of the new owner. Here it is a mirror from then on.

    False: `handover.owner` does not own it, or its term is not the previous one.
    """

    handover: Handover


class SilentOwner(Record, frozen=True):
    """A server without contact for a long time, and the number of its guilds mirrored here."""

    server: str
    guilds: int


class FindSilentOwners(StorageEffect[tuple[SilentOwner, ...]], frozen=True):
    """Find owners of mirrored guilds with the last contact before `before_ms`, those with the most guilds first."""

    before_ms: int
    limit: int


# --- the owner's side ------------------------------------------------------------------------------


class SetSuccessor(StorageEffect[bool], frozen=True):
    """Store the statement that takes effect if this server is lost, or revoke the previous one, and set the guild's serial.

    Only an owner of the guild may, else Refusal 403. False: `serial` is not above the previous one.
    """

    author: Author
    guild_id: str
    handover: Handover | None
    serial: int
    now_ms: int


class FindSuccession(StorageEffect[Handover | None], frozen=True):
    """Find the statement in force for a guild of this server. None: no successor."""

    turns_of = "reader_id"

    guild_id: str
    reader_id: str | None = None


class Move(Record, frozen=True):
    """A guild that is being moved. `handover`: set when this server no longer owns it. `note`: the latest report."""

    guild_id: str
    to: str
    began_ms: int
    handover: Handover | None = None
    note: str = ""


class BeginMove(StorageEffect[str | None], frozen=True):
    """Start to move a guild: the server `to` may copy its history from now on. Idempotent. Returns why it cannot move, or None."""

    guild_id: str
    to: str
    now_ms: int


class EndMove(StorageEffect[bool], frozen=True):
    """Delete a move: a completed one (`done`), or one whose guild this server still owns. False: no such move."""

    guild_id: str
    done: bool


class NoteMove(StorageEffect[None], frozen=True):
    """Store the latest report about a move."""

    guild_id: str
    note: str


class ListMoves(StorageEffect[tuple[Move, ...]], frozen=True):
    """List the guilds that are being moved."""


class HandOver(StorageEffect[str | None], frozen=True):
    """Hand over a guild that is being moved. From then on it is a mirror, and nothing more is appended to its logs here.

    Returns why it cannot be handed over now, or None. The other server must have a member, and the guild's own log, which it
    has up to `sequence`, completely.
    """

    handover: Handover
    sequence: int


class TransferredGuild(Record, frozen=True):
    """The state of a guild, besides its logs, that the new owner needs."""

    logs: tuple[TransferredLog, ...]
    invites: tuple[TransferredInvite, ...]


class ReadTransferred(StorageEffect[TransferredGuild], frozen=True):
    """Read the heads of a guild's logs, and its invites."""

    guild_id: str


class HistoryLine(Record, frozen=True):
    """An event as stored by the owner."""

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


# --- the new owner's side --------------------------------------------------------------------------


class LogCopy(Record, frozen=True):
    """How much of a mirrored log is here. `copied`: the sequence up to which it is here with its history and nonces."""

    log_id: str
    epoch: int
    head: int
    base: int
    copied: int


class FindCopies(StorageEffect[tuple[LogCopy, ...] | None], frozen=True):
    """Find how much of each log of a guild of `owner` is here, the guild's own log first. None: it is not mirrored."""

    owner: str
    guild_id: str


class StageHistory(StorageEffect[str | None], frozen=True):
    """Stage events of a mirrored log that follow the copied ones; others are ignored. Returns why they are refused, or None."""

    owner: str
    log_id: str
    events: tuple[HistoricEvent, ...]


class AbsorbHistory(StorageEffect[None], frozen=True):
    """Add staged events to a mirrored log, if they reach from before its base up to the base, and take over nonces.

    The log is complete then.
    """

    owner: str
    log_id: str


class StartAbsorbing(Effect[None], frozen=True):
    """Start `AbsorbHistory` in the background, unless it is running: rewriting a log takes longer than a request may."""

    owner: str
    log_id: str


class TakeGuild(StorageEffect[bool], frozen=True):
    """Take over a mirrored guild. Its logs continue in the epoch `epoch` and are delivered to all servers with members.

    Or continue a guild that this server owns in an earlier term, which another owner has given up to it. Idempotent.
    `logs`: the heads that the complete logs must have here; False if they differ. None: continue from the present heads.
    `former`: earlier hand-overs, stored for servers that know an earlier owner.
    """

    handover: Handover
    epoch: int
    logs: tuple[TransferredLog, ...] | None
    invites: tuple[TransferredInvite, ...]
    now_ms: int
    former: tuple[Handover, ...] = ()
