"""What an owner may ask of a mirror, and how often: new epochs, purges, keys of the time (PROTOCOL 16.1.6, 16.5.9, 16.8.11)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from openguild_proto.canonical.signing import SigningKey
from openguild_proto.effects.federation import AskPeer, PublishedKey, StorePeer
from openguild_proto.effects.mirrors import FindMirrorHead
from openguild_proto.limits import RENEWAL_SECS
from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_proto.records import LogPosition
from openguild_proto.schemas.between_servers import Delivery, DeliveryAnswer, EndedGuild, LogDelivery
from tests.proto.operations.test_federated_guilds import NORTH, SOUTH, Shared, shared, user_id
from tests.proto.operations.test_lying_owners import said, told

__all__ = ["shared"]


def deliver(shared: Shared, *, logs: Any = (), ended: Any = ()) -> DeliveryAnswer:
    body = msgspec.json.encode(Delivery(list(logs), list(ended)))
    answer = shared.north.perform(AskPeer(SOUTH, "POST", "/federation/v1/deliveries", body))
    assert answer.status == 200, answer.body
    return msgspec.json.decode(answer.body, type=DeliveryAnswer)


def renew(shared: Shared, epoch: int) -> tuple[str, str | None]:
    """The north counts in another epoch, and says so."""
    shared.north.tables._state.epochs[shared.guild] = epoch
    answer = deliver(shared, logs=[LogDelivery(shared.guild, shared.guild, epoch, 9, [])])
    (place,) = answer.logs
    return place.status, place.reason


def here(shared: Shared) -> LogPosition | None:
    place: LogPosition | None = shared.south.perform(FindMirrorHead(NORTH, shared.guild))
    return place


def test_a_mirror_begins_anew_once_a_minute(shared: Shared) -> None:
    shared.south.service.mirror_renewals = SlidingWindow(1, RENEWAL_SECS)
    assert renew(shared, 7) == ("ok", None)
    snapshots = len([request for request in shared.federation.carried if "snapshot" in str(request)])
    for epoch in range(8, 20):
        assert renew(shared, epoch) == ("epoch", "its mirror was rebuilt within the last minute")
    assert len([request for request in shared.federation.carried if "snapshot" in str(request)]) == snapshots
    place = here(shared)
    assert place is not None
    assert place.epoch == 7
    shared.south.wall_ms += 61_000
    shared.north.wall_ms += 61_000
    assert renew(shared, 20) == ("ok", None)


def test_a_late_purge_leaves_the_mirror_of_a_later_join(shared: Shared) -> None:
    shared.south.ask_for(shared.bob, "DELETE", f"/guilds/{shared.guild}/members/@me")
    shared.level()
    end = shared.north.tables._state.place_of(shared.guild)
    purge = EndedGuild(shared.guild, end.epoch, end.sequence)
    shared.south.ask_for(shared.bob, "POST", f"/invites/{shared.code}@{NORTH}/accept")
    assert deliver(shared, ended=[purge]).purged == []
    assert here(shared) is not None
    shared.north.tables._state.epochs[shared.guild] = 7
    assert deliver(shared, ended=[EndedGuild(shared.guild, 7, 99)]).purged == [], (
        "the owner, asked, says that it mirrors"
    )


@pytest.mark.parametrize("epoch", [1, 0], ids=["its end", "the guild is deleted"])
def test_a_mirror_from_before_the_end_is_purged(shared: Shared, epoch: int) -> None:
    assert deliver(shared, ended=[EndedGuild(shared.guild, epoch, 99)]).purged == [shared.guild]
    assert here(shared) is None
    assert deliver(shared, ended=[EndedGuild(shared.guild, epoch, 99), EndedGuild("x")]).purged == [shared.guild]


def test_a_mirror_in_another_epoch_asks_its_owner_before_it_goes(shared: Shared) -> None:
    member = user_id(shared.south, shared.bob)
    shared.north.ask_for(shared.alice, "DELETE", f"/guilds/{shared.guild}/members/{member}")
    shared.north.tables._state.epochs[shared.guild] = 7
    shared.federation.cut.add(frozenset({SOUTH, NORTH}))
    assert here(shared) is not None
    shared.federation.cut.clear()
    assert deliver(shared, ended=[EndedGuild(shared.guild, 7, 99)]).purged == [shared.guild]
    assert here(shared) is None


def test_an_event_is_verified_by_a_key_of_its_time(shared: Shared) -> None:
    """The key of the owner was revoked a minute ago, and another one signs its requests."""
    north, south = shared.north, shared.south
    alice = user_id(north, shared.alice)
    before = said(shared, "message", {"content": "before"}, sender=alice)
    south.wall_ms += 120_000
    north.wall_ms += 120_000
    after = said(shared, "message", {"content": "after"}, sender=alice)
    former = north.signer
    north.signer = type(former)(NORTH, "2", SigningKey(b"n" * 32))
    keys = (
        PublishedKey("1", former.public, 0, 2**52, revoked_at=north.wall_ms - 60_000),
        PublishedKey("2", north.signer.public, 0, 2**52),
    )
    south.perform(StorePeer(NORTH, f"https://{NORTH}", keys, south.wall_ms))
    south.service.peers.drop(NORTH)
    assert told(shared, shared.channel, 1, after).status == "refused"
    assert told(shared, shared.channel, 1, before).status == "ok"
