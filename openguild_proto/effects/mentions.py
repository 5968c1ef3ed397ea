"""Effects that read mentions. `AppendEvent` stores them with their message."""

from __future__ import annotations

from openguild_proto.effects.base import StorageEffect
from openguild_proto.records import MentionRecord, PageCursor


class ListMentions(StorageEffect[tuple[MentionRecord, ...]], frozen=True):
    """List the messages that mention a user, in channels that they may read as a member: newest first, then by event id.

    `unread`: only those after their read position. `after`: the cursor of the last entry of the previous page.
    """

    divides_by = "user"
    on_standby = True
    turns_of = "user_id"

    user_id: str
    unread: bool = False
    limit: int | None = None
    after: PageCursor | None = None
