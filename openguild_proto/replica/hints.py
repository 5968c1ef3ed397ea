"""Hints from local clients and from other replicas: selects their local receivers."""

from __future__ import annotations

import msgspec

from openguild_proto.bus.topics import Topic
from openguild_proto.hints import (
    AnyHint,
    PresenceChoice,
    PresenceReport,
    ReadHint,
    ReportRequest,
    TypingHint,
    decode_hint,
    encode_hint,
)
from openguild_proto.replica.actions import Broadcast, Level, Publish
from openguild_proto.replica.gateway import Gateway
from openguild_proto.replica.notifications import Notifications
from openguild_proto.replica.outputs import Outputs
from openguild_proto.replica.presence import Presence
from openguild_proto.replica.typing import TypingThrottle
from openguild_proto.schemas.payloads import channel_read_payload, typing_data, typing_payload


class Hints:
    """Applies and forwards hints. `presence` is None if this server does not show presence."""

    def __init__(
        self, outputs: Outputs, notifications: Notifications, presence: Presence | None, gateway: Gateway
    ) -> None:
        self._outputs = outputs
        self._notifications = notifications
        self._presence = presence
        self._gateway = gateway
        self._typing = TypingThrottle()
        self._has_warned = False

    def announce(self, hint: AnyHint) -> None:
        """Apply a hint from a local client, and send it to the other replicas. Drops typing hints that come too often."""
        if isinstance(hint, TypingHint):
            if not self._typing.admits(hint.channel_id, hint.user_id, self._outputs.procedures.now):
                return
            self._outputs.add(Publish(hint.channel_id, encode_hint(hint), ""))
        else:
            self._outputs.add(Broadcast(Topic.HINTS, encode_hint(hint)))
        self._apply(hint)

    def received(self, payload: bytes) -> None:
        """Apply a hint from another replica. Malformed hints are dropped; the first is logged."""
        try:
            hint = decode_hint(payload)
        except msgspec.DecodeError:
            if not self._has_warned:  # one line per hint would flood the log
                self._has_warned = True
                self._outputs.log(Level.WARNING, "hints from another replica are malformed, or of a later release")
            return
        self._apply(hint)

    def _apply(self, hint: AnyHint) -> None:
        match hint:
            case ReadHint(user_id=user_id, state=state):
                self._notifications.hint((user_id,), channel_read_payload(state))
            case TypingHint(channel_id=channel_id, user_id=user_id, preview=preview):
                users = [other for other in self._notifications.watchers.of_channel(channel_id) if other != user_id]
                self._notifications.hint(users, typing_payload(channel_id, user_id, preview))
                self._gateway.offer(f"channel:{channel_id}", "typing", typing_data(user_id, preview), user_id)
            case _ if self._presence is None:
                pass
            case PresenceChoice():
                self._presence.choose(hint)
            case PresenceReport():
                self._presence.apply_report(hint)
            case ReportRequest():
                self._presence.report_all(hint)
