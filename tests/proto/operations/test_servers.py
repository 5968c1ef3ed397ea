"""Servers that ask each other: who is heard, who is not and why, what is fetched and what is not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from openguild_proto.canonical.signing import SigningKey
from openguild_proto.effects.federation import (
    FindPeer,
    Peer,
    PeerUnavailable,
    RevokeOwnKey,
    RuleServer,
    Standing,
)
from openguild_proto.errors import Refusal
from openguild_proto.federation.keys import pinned_key
from openguild_proto.federation.policy import Mode
from openguild_proto.http.message import Response
from openguild_proto.operations.servers import require_unrestricted, verified_server
from openguild_proto.policy.ratelimit import SlidingWindow
from tests.support.servers import PING, Network, ServerWorld, failure, refusal


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def a(network: Network) -> ServerWorld:
    return ServerWorld(network, "a.example")


@pytest.fixture
def b(network: Network) -> ServerWorld:
    return ServerWorld(network, "b.example")


def test_two_servers_that_never_met_ask_each_other(network: Network, a: ServerWorld, b: ServerWorld) -> None:
    answer = a.ask_server("b.example", "GET", PING)
    assert answer.status == 200
    assert msgspec.json.decode(answer.body) == {"server": "b.example", "time": "2023-11-14T22:13:20Z"}
    places = ["/.well-known/openguild", "/federation/v1/keys"]
    assert network.fetched == [f"https://{name}{place}" for name in ("b.example", "a.example") for place in places]
    assert b.ask_server("a.example", "GET", PING).status == 200
    assert len(network.fetched) == 4, "both know each other's keys"
    found = a.tables.perform(FindPeer(server="b.example"))
    assert found is not None
    assert (found.base_url, found.contacted_ms) == ("https://b.example", a.wall_ms)


def test_a_server_that_is_reached_no_more_is_looked_for_elsewhere(
    network: Network, a: ServerWorld, b: ServerWorld
) -> None:
    for place in ("one.example", "two.example"):
        b.change_policy(base_url=f"https://{place}")
        network.servers[place] = b
        assert a.ask_server("b.example", "GET", PING).status == 200
        del network.servers[place]
        assert failure(a) == "connect", "its keys were read within the last minute"
        a.wall_ms += 61_000
        b.wall_ms += 61_000
    fetched = len(network.fetched)
    assert [failure(a) for _ in range(3)] == ["connect"] * 3
    assert len(network.fetched) == fetched + 2, "where it is nowhere else it is looked for once"


@pytest.mark.parametrize("status", [401, 404, 502])
def test_a_server_is_looked_for_elsewhere_where_another_answers_at_its_address(
    network: Network, a: ServerWorld, b: ServerWorld, status: int
) -> None:
    b.change_policy(base_url="https://one.example")
    network.servers["one.example"] = b
    assert a.ask_server("b.example", "GET", PING).status == 200
    a.wall_ms += 61_000
    b.wall_ms += 61_000
    b.change_policy(base_url="https://two.example")
    network.servers["two.example"] = b
    if status != 401:  # else it still answers there, and refuses requests that name its former authority
        other = network.servers["one.example"] = ServerWorld(network, "c.example")
        network.bend_answer = lambda answer: Response(status) if network.last is other else answer
    if status == 401:
        assert a.ask_server("b.example", "GET", PING).status == 200, "it was not taken, and is sent again at once"
    else:
        assert failure(a) == "unsigned", "the other one may have done it"
        assert a.ask_server("b.example", "GET", PING).status == 200
    fetched = len(network.fetched)
    network.bend_answer = lambda answer: Response(status)
    assert {failure(a) for _ in range(3)} == {"refused" if status == 401 else "unsigned"}
    assert len(network.fetched) == fetched, "it was looked for within the last minute"


def test_an_answer_of_404_is_signed_too(a: ServerWorld, b: ServerWorld) -> None:
    assert a.ask_server("b.example", "GET", f"{PING}?x=1").status == 400
    assert failure(a, target="/federation/v1/nothing") == "unsigned", "where no route is, no signature was read"


@pytest.mark.parametrize("federated", [True, False])
def test_where_federation_is_off_nothing_is_told(
    network: Network, a: ServerWorld, b: ServerWorld, federated: bool
) -> None:
    if not federated:
        b.change_policy(mode=Mode.OFF)
    statuses = [b.ask("GET", path).status for path in ("/.well-known/openguild", "/federation/v1/keys")]
    assert statuses == ([200, 200] if federated else [501, 501])
    if not federated:
        assert b.run(a.signed("GET", PING, authority="b.example")[0]).status == 501  # type: ignore[union-attr]  # a response
        assert failure(a) == "discovery"
        assert failure(b, "a.example") == "off"


def test_a_server_without_a_key_is_not_federated(a: ServerWorld, b: ServerWorld) -> None:
    b.service.signer = None
    assert refusal(b, a.signed("GET", PING, authority="b.example")[0])[0] == 501
    assert b.ask("GET", "/federation/v1/keys").status == 501


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"headers": ()}, "missing"),
        ({"method": "POST"}, None),
        ({"query": "x=1"}, "bad_signature"),
        ({"body": b"{}"}, "wrong_digest"),
    ],
)
def test_altered_requests(a: ServerWorld, b: ServerWorld, changed: dict[str, Any], fault: str | None) -> None:
    asked = msgspec.structs.replace(a.signed("GET", PING, authority="b.example")[0], **changed)
    assert refusal(b, asked) == ((401, "signature_invalid", fault) if fault else (405, "method_not_allowed", None))


def test_a_replayed_request_is_refused_by_every_replica(network: Network, a: ServerWorld, b: ServerWorld) -> None:
    other = ServerWorld(network, "b.example")
    other.tables = b.tables
    asked, _ = a.signed("GET", PING, authority="b.example")
    network.servers["b.example"] = b
    assert b.run(asked).status == 200  # type: ignore[union-attr]  # a response
    for replica in (b, other):
        assert refusal(replica, asked) == (401, "signature_invalid", "replayed")
    b.wall_ms += 301_000
    assert refusal(b, asked) == (401, "signature_invalid", "expired")


def test_a_nonce_is_kept_while_a_clock_may_be_set_back(a: ServerWorld, b: ServerWorld) -> None:
    """The clock of the receiver is seven minutes ahead for a while, in which old nonces are forgotten."""
    asked, _ = a.signed("GET", PING, authority="b.example")
    assert b.run(asked).status == 200  # type: ignore[union-attr]  # a response
    for server in (a, b):
        server.wall_ms += 420_000
    for _ in range(3):
        assert a.ask_server("b.example", "GET", PING).status == 200
    b.wall_ms -= 420_000
    assert refusal(b, asked) == (401, "signature_invalid", "replayed")


@pytest.mark.parametrize(("ahead", "fault"), [(-301, "expired"), (301, "from_future"), (240, None), (-240, None)])
def test_clocks_may_differ_by_five_minutes(a: ServerWorld, b: ServerWorld, ahead: int, fault: str | None) -> None:
    asked, _ = a.signed("GET", PING, authority="b.example", created=a.wall_ms // 1_000 + ahead)
    answer = b.run(asked)
    assert isinstance(answer, Response)
    assert answer.status == (401 if fault else 200)
    if fault is None:
        assert answer.peer == ("a.example", pytest.approx(ahead))


def test_a_request_for_another_server_is_not_for_this_one(network: Network, a: ServerWorld, b: ServerWorld) -> None:
    """What one server was sent it cannot pass on in the sender's name."""
    assert refusal(b, a.signed("GET", PING, authority="c.example")[0])[2] == "bad_signature"


def test_a_server_is_not_heard_under_another_ones_name(network: Network, a: ServerWorld, b: ServerWorld) -> None:
    evil = ServerWorld(network, "evil.example")
    evil.name = "a.example"
    evil.service.signer = None
    evil.use_key("1", SigningKey(b"e" * 32))
    assert refusal(b, evil.signed("GET", PING, authority="b.example")[0])[2] == "bad_signature"
    evil.service.signer = None
    evil.use_key("new", SigningKey(b"e" * 32))
    b.wall_ms += 61_000
    assert refusal(b, evil.signed("GET", PING, authority="b.example")[0])[2] == "unknown_key"


def test_a_server_does_not_ask_itself(b: ServerWorld) -> None:
    assert refusal(b, b.signed("GET", PING, authority="b.example")[0])[2] == "unknown_server"
    assert failure(b, "b.example") == "denied"


# --- keys --------------------------------------------------------------------------------------------


def test_in_the_pinned_mode_strangers_are_refused_and_nothing_is_fetched(
    network: Network, a: ServerWorld, b: ServerWorld
) -> None:
    b.change_policy(mode=Mode.PINNED)
    status, code, _ = refusal(b, a.signed("GET", PING, authority="b.example")[0])
    assert (status, code) == (403, "server_denied")
    assert network.fetched == []
    assert failure(b, "a.example") == "denied"
    assert a.service.signer is not None
    b.change_policy(pinned={"a.example": (pinned_key("1", a.service.signer.public),)})
    assert b.run(a.signed("GET", PING, authority="b.example")[0]).status == 200  # type: ignore[union-attr]  # a response


def test_contact_with_a_pinned_server_is_noted_whose_keys_cannot_be_read(
    network: Network, a: ServerWorld, b: ServerWorld
) -> None:
    assert a.service.signer is not None
    b.change_policy(mode=Mode.PINNED, pinned={"a.example": (pinned_key("1", a.service.signer.public),)})
    del network.servers["a.example"]
    assert b.run(a.signed("GET", PING, authority="b.example")[0]).status == 200  # type: ignore[union-attr]  # a response
    assert b.tables.perform(FindPeer(server="a.example")) == Peer("a.example", contacted_ms=b.wall_ms)


def test_a_denied_server_is_told_why_in_a_signed_answer(a: ServerWorld, b: ServerWorld) -> None:
    a.ask_server("b.example", "GET", PING)
    b.change_policy(configured={"a.example": Standing.DENY})
    answer = a.ask_server("b.example", "GET", PING)
    assert answer.status == 403
    body = msgspec.json.decode(answer.body)
    assert body["error"] == "server_denied"
    assert body["message"].endswith(": by the configuration of this server")


def test_requests_and_megabytes_of_a_server_are_limited(a: ServerWorld, b: ServerWorld) -> None:
    b.service.peer_requests = SlidingWindow(2, 60)
    statuses = [a.ask_server("b.example", "GET", PING).status for _ in range(3)]
    assert statuses == [200, 200, 429]
    b.service.peer_requests = SlidingWindow(100, 60)
    b.service.peer_requests = SlidingWindow(1_000, 60)
    b.service.peer_megabytes = SlidingWindow(1, 60)
    statuses = [a.ask_server("b.example", "GET", PING, b" " * 20_000).status for _ in range(60)]
    assert statuses == [200] * 53 + [429] * 7, "as many small bodies as make a megabyte"
    assert a.ask_server("b.example", "GET", PING).status == 200


def test_an_operator_decides_while_the_server_serves(a: ServerWorld, b: ServerWorld) -> None:
    def rule(standing: Standing | None, guild_id: str | None = None) -> None:
        b.tables.perform(
            RuleServer(server="a.example", guild_id=guild_id, standing=standing, reason="spam", now_ms=b.wall_ms)
        )
        b.wall_ms += 1_001  # each replica looks again within a second

    assert a.ask_server("b.example", "GET", PING).status == 200
    rule(Standing.DENY)
    answer = a.ask_server("b.example", "GET", PING)
    assert (answer.status, msgspec.json.decode(answer.body)["message"][-6:]) == (403, ": spam")
    assert failure(b, "a.example") == "denied"
    rule(Standing.QUARANTINE)
    assert a.ask_server("b.example", "GET", PING).status == 200, "what it has a right to it may still read"
    rule(None)
    rule(Standing.DENY, "another guild")
    assert a.ask_server("b.example", "GET", PING).status == 200
    b.change_policy(mode=Mode.PINNED)
    rule(Standing.ALLOW)
    assert a.ask_server("b.example", "GET", PING).status == 200


@pytest.mark.parametrize(
    ("standing", "guild", "code"),
    [
        (Standing.QUARANTINE, None, "server_quarantined"),
        (Standing.QUARANTINE, "g", "server_quarantined"),
        (Standing.DENY, "g", "server_denied"),
        (Standing.QUARANTINE, "other", None),
        (Standing.ALLOW, None, None),
    ],
)
def test_nothing_new_is_taken_in_quarantine(
    a: ServerWorld, b: ServerWorld, standing: Standing, guild: str | None, code: str | None
) -> None:
    b.tables.perform(RuleServer(server="a.example", guild_id=guild, standing=standing, reason="", now_ms=0))
    caller = b.drive(verified_server(b.context(), a.signed("POST", "/x", authority="b.example")[0]))
    if code is None:
        require_unrestricted(b.context(), caller, "g")
        return
    with pytest.raises(Refusal) as refused:
        require_unrestricted(b.context(), caller, "g")
    assert refused.value.code.spec.code == code


def test_a_revocation_is_pushed(network: Network, a: ServerWorld, b: ServerWorld) -> None:
    a.ask_server("b.example", "GET", PING)
    stolen = a.service.signer
    a.use_key("2", SigningKey(b"2" * 32))
    for world in (a, b):
        world.wall_ms += 61_000
    a.ask_server("b.example", "GET", PING)
    for world in (a, b):
        world.wall_ms += 61_000
    a.tables.perform(RevokeOwnKey(key_id="1", revoked_at=a.wall_ms))
    assert a.ask_server("b.example", "POST", "/federation/v1/keys/changed").status == 204
    fetched = len(network.fetched)
    assert a.ask_server("b.example", "POST", "/federation/v1/keys/changed").status == 204
    assert len(network.fetched) == fetched, "once a minute"
    a.service.signer = stolen
    assert refusal(b, a.signed("GET", PING, authority="b.example")[0])[2] == "revoked_key"


# --- answers -----------------------------------------------------------------------------------------


def altered(**changes: Any) -> Any:
    def bend(answer: Response) -> Response:
        return msgspec.structs.replace(answer, **changes)

    return bend


@pytest.mark.parametrize(
    ("status", "reason"),
    [(401, "refused"), (403, "denied_there"), (429, "overloaded"), (501, "off_there"), (503, "overloaded"), (200, "unsigned"),
     (502, "unsigned")],
)  # fmt: skip
def test_an_answer_without_a_signature_does_not_count(
    network: Network, a: ServerWorld, b: ServerWorld, status: int, reason: str
) -> None:
    a.ask_server("b.example", "GET", PING)
    network.bend_answer = altered(status=status, headers=(("retry-after", "7"),))
    with pytest.raises(PeerUnavailable) as unavailable:
        a.ask_server("b.example", "GET", PING)
    assert (unavailable.value.reason, unavailable.value.wait_secs) == (reason, 7.0)
    assert unavailable.value.sent == (reason == "unsigned")


def test_an_altered_or_old_answer_does_not_count(network: Network, a: ServerWorld, b: ServerWorld) -> None:
    a.ask_server("b.example", "GET", PING)
    network.bend_answer = altered(body=b'{"server":"b.example"}')
    assert failure(a) == "unsigned"
    kept: list[Response] = []
    network.bend_answer = lambda answer: kept.append(answer) or kept[0]
    assert a.ask_server("b.example", "GET", PING).status == 200
    assert failure(a) == "unsigned", "the answer to another request"


def test_what_is_known_of_peers_is_asked_of_the_store_once_a_second(a: ServerWorld, b: ServerWorld) -> None:
    a.ask_server("b.example", "GET", PING)
    looked: list[Peer] = []

    def note(place: int, effect: Any) -> None:
        if isinstance(effect, FindPeer):
            looked.append(Peer(effect.server))

    for _ in range(5):
        b.run(a.signed("GET", PING, authority="b.example")[0], before=note)
    assert looked == []
    b.wall_ms += 1_001
    b.run(a.signed("GET", PING, authority="b.example")[0], before=note)
    assert len(looked) == 1
