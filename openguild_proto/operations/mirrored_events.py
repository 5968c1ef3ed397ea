"""Verifies the events of another server's log, for a mirror (PROTOCOL 16.8)."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from openguild_proto.canonical.event import CanonicalEvent
from openguild_proto.canonical.redaction import has_canonical_content
from openguild_proto.canonical.verify import ServerKeys, UnverifiedEvent, Verified, verify_event
from openguild_proto.limits import MAX_MIRRORED_EVENT_BYTES
from openguild_proto.mirror_records import MirroredEvent
from openguild_proto.operations.owner_claims import event_problem, form_problem
from openguild_proto.records import LogPosition
from openguild_proto.schemas.event_effects import EventEffect, effect_of_event
from openguild_proto.schemas.events import parse_content, parse_event


def read_event(wire: bytes) -> CanonicalEvent:
    """Parse an event of another server, if it can be verified in a bounded time. Raises UnverifiedEvent."""
    if len(wire) > MAX_MIRRORED_EVENT_BYTES:
        raise UnverifiedEvent("it is too large")
    try:
        event = parse_event(wire)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as malformed:
        raise UnverifiedEvent(f"this is not an event: {malformed}") from None
    problem = form_problem(event)
    if problem is not None:
        raise UnverifiedEvent(problem)
    return event


def read_mirrored(
    wire: bytes,
    place: LogPosition,
    owner: str,
    here: str,
    keys: Callable[[int], ServerKeys],
    *,
    at_ms: int,
    of_guild: bool,
    any_epoch: bool = False,
) -> MirroredEvent:
    """Return the event that `owner` claims to be at `place` of its log. `any_epoch`: it may have been stored in an earlier epoch.

    Raises UnverifiedEvent unless `owner` has signed it, and this server, `here`, has signed events that name it as their origin.
    `keys`: return the keys that verify events of a time.
    """
    event = read_event(wire)
    known = keys(event.origin_ts)
    verified = verify_event(wire, known, owner)
    of_here = event.origin_server == here
    if of_here:
        verify_event(wire, known, here)
    if event.room_id != place.log_id:
        raise UnverifiedEvent("it belongs to another log")
    if not has_canonical_content(wire, event.content):
        raise UnverifiedEvent("it is not in the canonical form")
    content = parse_content(event)
    problem = event_problem(event, content, wire, at_ms)
    if problem is not None:
        raise UnverifiedEvent(problem)
    if of_guild:
        _check_place(event, place, owner, any_epoch=any_epoch)
        said = EventEffect(None)
    else:
        said = effect_of_event(event, content)
    return MirroredEvent(
        place.sequence,
        event.event_id,
        event.event_type,
        event.sender,
        wire,
        at_ms,
        said.change,
        said.mentions,
        said.redacted_by if verified is Verified.REDACTED else None,
        by_owner=not (of_guild or of_here),
        of_third=event.origin_server not in {owner, here},
    )


def _check_place(event: CanonicalEvent, place: LogPosition, owner: str, *, any_epoch: bool) -> None:
    """Require that events of a guild's log are the owner's, and name their place."""
    if event.origin_server != owner:
        raise UnverifiedEvent("it belongs to another server than the guild")
    content = event.content
    stands = content.get("place") if isinstance(content, dict) else None
    epoch = stands.get("epoch") if any_epoch and isinstance(stands, dict) else place.epoch
    if stands != {"epoch": epoch, "sequence": place.sequence}:
        raise UnverifiedEvent("it is at another position")
