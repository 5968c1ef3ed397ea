"""Builds the events of guilds' and users' logs. A store calls it in the transaction of the change."""

from __future__ import annotations

import msgspec

from openguild_proto.canonical.event import BuiltEvent, build_event
from openguild_proto.canonical.keys import EventSigner
from openguild_proto.records import LogPosition
from openguild_proto.schemas.log_contents import USER_CONTENTS, LogContent


class LogWriter(msgspec.Struct, frozen=True):
    """Builds events of one server. `signer` None: they are not signed (PROTOCOL 6.3.3).

    An event contains its own position, so equal contents are different events, and a mirror can check the order. Events of a
    user's log are not signed, because only that user reads them.
    """

    server_name: str = "localhost"
    signer: EventSigner | None = None

    def write(self, place: LogPosition, content: LogContent, *, sender: str | None, now_ms: int) -> BuiltEvent:
        """Return the event at `place`. `sender`: the user who made the change; None: the server's operator."""
        at = {"epoch": place.epoch, "sequence": place.sequence}
        return build_event(
            server_name=self.server_name,
            room_id=place.log_id,
            event_type=content.event_type,
            sender=sender if sender is not None else self.server_name,
            content={**content.members(), "place": at},
            origin_ts_ms=now_ms,
            signer=None if content.event_type in USER_CONTENTS else self.signer,
        )
