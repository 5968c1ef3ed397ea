"""Effects of handing a guild over to another server: on the owner, on the new owner, and on mirrors (PROTOCOL 16.10)."""

from __future__ import annotations

from openguild_proto.effects.base import Effect, StorageEffect
from openguild_proto.mirror_records import Handover, HistoricEvent, PassedInvite, PassedLog, Tenure
from openguild_proto.records import Author, Record

# --- what is known of owners -----------------------------------------------------------------------


class FindTenure(StorageEffect[Tenure | None], frozen=True):
    """Find the owner server of a guild; None: the guild is not on this server."""

    guild_id: str


class ListHandovers(StorageEffect[tuple[Handover, ...]], frozen=True):
    """List the hand-overs of a guild that this server made, or accepted as a mirror, by term. The guild may be gone."""

    guild_id: str


class FollowHandover(StorageEffect[bool], frozen=True):
    """Note that `handover.owner`, perhaps this server, no longer owns a guild. From then on, the guild is a mirror.

    False: that server is not the owner, or its term is not the previous one.
    """

    handover: Handover


class SilentOwner(Record, frozen=True):
    """A server without contact for a long time. `guilds`: the number of its guilds that are mirrored here."""

    server: str
    guilds: int


class FindSilentOwners(StorageEffect[tuple[SilentOwner, ...]], frozen=True):
    """Find owners of mirrored guilds without contact since `before_ms`, those with the most guilds first."""

    before_ms: int
    limit: int


# --- of the owner ----------------------------------------------------------------------------------


class SetSuccessor(StorageEffect[bool], frozen=True):
    """Store the statement that counts if this server is lost, or revoke the previous one, and raise the guild's serial to `serial`.

    Only an owner of the guild may do this: Refusal 403. False: the serial is not higher than the previous one.
    """

    author: Author
    guild_id: str
    handover: Handover | None
    serial: int
    now_ms: int


class FindSuccession(StorageEffect[Handover | None], frozen=True):
    """Find the valid statement for a guild of this server; None: there is none."""

    turns_of = "reader_id"

    guild_id: str
    reader_id: str | None = None


class Move(Record, frozen=True):
    """A guild that is being moved. `handover`: set once this server no longer owns it. `note`: the last report."""

    guild_id: str
    to: str
    began_ms: int
    handover: Handover | None = None
    note: str = ""


class BeginMove(StorageEffect[str | None], frozen=True):
    """Start to move a guild: the server `to` may copy its history from now on. Idempotent. Returns a text if this is refused."""

    guild_id: str
    to: str
    now_ms: int


class EndMove(StorageEffect[bool], frozen=True):
    """Forget a move that is `done`, or cancel one while this server still owns the guild. False: no such move, or too late."""

    guild_id: str
    done: bool


class NoteMove(StorageEffect[None], frozen=True):
    """Store the last report about a move."""

    guild_id: str
    note: str


class ListMoves(StorageEffect[tuple[Move, ...]], frozen=True):
    """List the guilds that are being moved."""


class HandOver(StorageEffect[str | None], frozen=True):
    """Hand over a guild that is being moved. From then on it is a mirror, and nothing more is appended to its logs here.

    Returns a text if this is refused now. The other server must have a member and the whole log of the guild: it has it up to
    `sequence`.
    """

    handover: Handover
    sequence: int


class PassedGuild(Record, frozen=True):
    """The state of a guild that its new owner needs in addition to the logs."""

    logs: tuple[PassedLog, ...]
    invites: tuple[PassedInvite, ...]


class ReadPassed(StorageEffect[PassedGuild], frozen=True):
    """Read the ends of a guild's logs, and its invites."""

    guild_id: str


class HistoryLine(Record, frozen=True):
    """An event as the owner stores it."""

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
    """Read events of a log after a sequence. None: the log's guild is not being moved to `peer`."""

    peer: str
    log_id: str
    after: int
    limit: int


# --- of the server that takes it -------------------------------------------------------------------


class LogCopy(Record, frozen=True):
    """The part of a mirrored guild's log that is here. `copied`: the end of the part with history and nonces."""

    log_id: str
    epoch: int
    head: int
    base: int
    copied: int


class FindCopies(StorageEffect[tuple[LogCopy, ...] | None], frozen=True):
    """Find the parts of the logs of a guild of `owner` that are here, the guild's own log first; None: it is not mirrored."""

    owner: str
    guild_id: str


class StageHistory(StorageEffect[str | None], frozen=True):
    """Store events that follow the copied part of a mirrored log, separately from the log. Other events are ignored. Returns a
    text if this is refused.
    """

    owner: str
    log_id: str
    events: tuple[HistoricEvent, ...]


class AbsorbHistory(StorageEffect[None], frozen=True):
    """Add the separately stored events to a mirrored log, if they start below its base and reach it, and take over the nonces.

    The log is then complete.
    """

    owner: str
    log_id: str


class StartAbsorbing(Effect[None], frozen=True):
    """Start `AbsorbHistory` for a log that must be stored again, unless it is under way. It takes longer than a request may."""

    owner: str
    log_id: str


class TakeGuild(StorageEffect[bool], frozen=True):
    """Become the owner of a mirrored guild. Its logs continue in the epoch `epoch`, and are delivered to all servers with members.

    Also for a guild that this server owns in an earlier term, and that another owner has given up to it. Idempotent.
    `logs`: the places at which the logs must be complete. None: they continue from their current places. False: a log is at
    another place. `former`: earlier hand-overs, kept for servers that know an earlier owner.
    """

    handover: Handover
    epoch: int
    logs: tuple[PassedLog, ...] | None
    invites: tuple[PassedInvite, ...]
    now_ms: int
    former: tuple[Handover, ...] = ()
