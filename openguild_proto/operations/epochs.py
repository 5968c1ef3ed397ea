"""Checks the epoch of a `since`, for pages and streams of a channel's log."""

from __future__ import annotations

from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.http.message import EPOCH_HEADER, Headers
from openguild_proto.records import ChannelRecord, LogPlace

LOG_EPOCH = "X-OpenGuild-Epoch"
LOG_HEAD = "X-OpenGuild-Head"
LOG_PLACE = (LOG_EPOCH, LOG_HEAD)


def check_epoch(epoch: int | None, since: int | None, current: int) -> None:
    """Raise Refusal 400 unless `epoch` is that of the log, `current`. None is not checked."""
    if epoch is None:
        return
    if epoch < 1:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("epoch", "must be positive"),))
    if since is None:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("epoch", "says nothing without since"),))
    if epoch != current:
        raise Refusal(ErrorCode.INVALID_SINCE, details=(FieldProblem("epoch", f"the log's epoch is {current}"),))


def place_headers(place: LogPlace) -> Headers:
    """Return the headers with a place of a log: the response holds all that its events up to there say, or more."""
    return ((EPOCH_HEADER, str(place.epoch)), (LOG_HEAD.lower(), str(place.sequence)))


def epoch_header(channel: ChannelRecord) -> Headers:
    """Return the header with the log's epoch."""
    return ((EPOCH_HEADER, str(channel.epoch)),)
