"""Checks the start of a page or a stream of a log, by one rule for both (PROTOCOL 7.2.6)."""

from __future__ import annotations

from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.http.message import EPOCH_HEADER, Headers
from openguild_proto.records import ChannelAccess, ChannelRecord, LogPosition

LOG_EPOCH = "X-OpenGuild-Epoch"
LOG_HEAD = "X-OpenGuild-Head"
LOG_PLACE = (LOG_EPOCH, LOG_HEAD)


def check_start(since: int | None, epoch: int | None, newest: LogPosition, base: int | None = None) -> None:
    """Raise Refusal 400 unless a page or a stream may begin after `since` of `epoch` (PROTOCOL 7.2.6). None is not checked.

    `newest`: the place at which the log ends now. `base`: for a stream, the sequence after which a mirrored log begins here.
    """
    if epoch is not None and since is None:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("epoch", "requires since"),))
    if epoch is not None and epoch != newest.epoch:
        raise Refusal(ErrorCode.INVALID_SINCE, details=(FieldProblem("epoch", f"the log's epoch is {newest.epoch}"),))
    if since is not None and since > newest.sequence:
        problem = FieldProblem("since", f"the newest sequence is {newest.sequence}")
        raise Refusal(ErrorCode.INVALID_SINCE, details=(problem,))
    if since is not None and base is not None and since < base:
        problem = FieldProblem("since", f"this server has the log from {base} on")
        raise Refusal(ErrorCode.INVALID_SINCE, details=(problem,))


def newest_place(access: ChannelAccess) -> LogPosition:
    """Return the head of a channel's log."""
    return LogPosition(access.channel.channel_id, access.channel.epoch, access.head)


def place_headers(place: LogPosition) -> Headers:
    """Return the headers with a place of a log: the response includes all events up to there, or more."""
    return ((EPOCH_HEADER, str(place.epoch)), (LOG_HEAD.lower(), str(place.sequence)))


def epoch_header(channel: ChannelRecord) -> Headers:
    """Return the header with the log's epoch."""
    return ((EPOCH_HEADER, str(channel.epoch)),)
