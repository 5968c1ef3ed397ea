"""The final checks: every log against the acknowledged posts, and every reader's messages against every replica's."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from openguild_proto.client.view import ChannelView
from openguild_proto.limits import MAX_PAGE_EVENTS
from openguild_runtime.client import Client
from tests.scenarios.chaos.load import Load
from tests.scenarios.chaos.plan import Outcome
from tests.scenarios.chaos.reader import Reader

Log = list[tuple[str, str]]
"""Event id and type of each event of a channel."""


async def read_log(client: Client, channel: str) -> Log:
    log: Log = []
    while page := await client.request("GET", f"/channels/{channel}/events?since={len(log)}&limit={MAX_PAGE_EVENTS}"):
        for line in page:
            assert line["sequence"] == len(log) + 1, "the log is dense"
            log.append((line["event"]["event_id"], line["event"]["event_type"]))
    return log


def check_logs(outcome: Outcome, logs: dict[str, Log], load: Load) -> None:
    """Check that every acknowledged event is in its place, and that each post is stored as one message."""
    for (channel, sequence), event_id in load.acknowledged.items():
        outcome.lost += [found for found, _ in logs[channel][sequence - 1 : sequence]] != [event_id]
    events = [event for log in logs.values() for event in log]
    outcome.repeated += len(events) - len({event_id for event_id, _ in events})
    outcome.repeated += max(0, sum(kind == "message" for _, kind in events) - outcome.posts)
    outcome.redactions = sum(kind == "message.redacted" for _, kind in events)


def check_readers(outcome: Outcome, logs: dict[str, Log], readers: Sequence[Reader]) -> None:
    """Check that each reader has received its channel's log."""
    whole = {
        channel: hashlib.blake2b(b"".join(event_id.encode() for event_id, _ in log), digest_size=16).digest()
        for channel, log in logs.items()
    }
    for reader in readers:
        length = len(logs[reader.channel_id])
        reader.add_up()
        outcome.deliveries += reader.deliveries
        outcome.reconnects += reader.opens - 1
        outcome.texts_taken_back += reader.taken_back
        outcome.gaps += reader.gaps
        outcome.repeated += reader.repeated + max(0, reader.count - length)
        outcome.lost += max(0, length - reader.count)
        outcome.out_of_order += reader.out_of_order
        outcome.out_of_order += reader.count == length and reader.digest.digest() != whole[reader.channel_id]


Shown = list[tuple[Any, ...]]


async def shown_by(client: Client, channel: str) -> Shown:
    """Return the channel's messages as a replica shows them."""
    shown: Shown = []
    after = 0
    while page := await client.request("GET", f"/channels/{channel}/messages?after={after}&limit={MAX_PAGE_EVENTS}"):
        after = page[-1]["sequence"]
        for message in page:
            reactions = {line["emoji"]: (line["count"], line["me"]) for line in message.get("reactions", ())}
            shown.append(
                (
                    message["event_id"], message["sequence"], message.get("content"), message.get("versions", 1),
                    message.get("edited_at") is not None, message.get("redacted_by"),
                    message.get("pinned_at") is not None, reactions,
                )
            )  # fmt: skip
    return shown


def seen_in(view: ChannelView, user_id: str) -> Shown:
    """Return the messages of a reader's view, in the form of `shown_by`, for this user."""
    return [
        (
            message.event_id, message.sequence, message.text, message.versions, message.edited, message.redacted_by, message.pinned,
            {emoji: (len(users), user_id in users) for emoji, users in message.reactions.items()},
        )
        for message in view.messages.values()
    ]  # fmt: skip
