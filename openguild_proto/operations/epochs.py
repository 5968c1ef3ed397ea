"""Checks the epoch of a `since`, for pages and streams of a channel's log."""

from __future__ import annotations

from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.http.message import EPOCH_HEADER, Headers
from openguild_proto.records import ChannelRecord

LOG_EPOCH = "X-OpenGuild-Epoch"
LOG_HEAD = "X-OpenGuild-Head"


def check_epoch(epoch: int | None, since: int | None, channel: ChannelRecord) -> None:
    """Raise Refusal 400 unless `epoch` is that of the channel's log. None is not checked."""
    if epoch is None:
        return
    if epoch < 1:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("epoch", "must be positive"),))
    if since is None:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem("epoch", "says nothing without since"),))
    if epoch != channel.epoch:
        raise Refusal(ErrorCode.INVALID_SINCE, details=(FieldProblem("epoch", f"the log's epoch is {channel.epoch}"),))


def epoch_header(channel: ChannelRecord) -> Headers:
    """Return the header with the log's epoch."""
    return ((EPOCH_HEADER, str(channel.epoch)),)
