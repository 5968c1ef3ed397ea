"""The routes of the first implementation between servers, as its tests and its web client know them."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import msgspec
import pytest

from openguild_proto.canonical.event import build_event
from openguild_proto.canonical.keys import EventSigner
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.effects.federation import AskPeer, RuleServer, Standing
from openguild_proto.federation.policy import Mode
from openguild_proto.limits import MAX_PAGE_EVENTS
from tests.support.homeservers import Federation, Homeserver
from tests.support.world import decoded

NORTH, SOUTH, EAST = "north.test", "south.test", "east.test"
STRANGER = EventSigner(SOUTH, "1", SigningKey(b"x" * 32))


class Scene:
    """A guild of the north with a user of the south; the south speaks as the first implementation did."""

    def __init__(self) -> None:
        self.federation = Federation(NORTH, SOUTH, EAST)
        self.north, self.south = self.federation[NORTH], self.federation[SOUTH]
        self.alice, self.bob = self.north.user("alice"), self.south.user("bob")
        self.guild = self.north.ask_for(self.alice, "POST", "/guilds", {"name": "g"})["guild_id"]
        self.channel = self.north.ask_for(self.alice, "POST", f"/guilds/{self.guild}/channels", {"name": "c"})[
            "channel_id"
        ]
        code = self.north.ask_for(self.alice, "POST", f"/guilds/{self.guild}/invites")["code"]
        self.south.ask_for(self.bob, "POST", f"/invites/{code}@{NORTH}/accept")
        self.bob_id = self.south.ask_for(self.bob, "GET", "/users/me")["user_id"]

    def pdu(self, text: str = "hello", *, signer: EventSigner | None = None, **changes: Any) -> dict[str, Any]:
        made: dict[str, Any] = {
            "server_name": SOUTH, "room_id": self.channel, "event_type": "message", "sender": self.bob_id,
            "content": {"content": text, "author": {"id": self.bob_id, "username": "bob"}},
            "origin_ts_ms": self.north.wall_ms,
        } | changes  # fmt: skip
        event: dict[str, Any] = json.loads(build_event(**made, signer=signer or self.south.signer).wire)
        return event

    def send(self, *pdus: Any, origin: str = SOUTH, sender: Homeserver | None = None) -> tuple[int, Any]:
        body = json.dumps({"origin": origin, "pdus": pdus}).encode()
        asked = AskPeer(server=NORTH, method="POST", target="/federation/transactions", body=body)
        answer = (sender or self.south).perform(asked)
        return answer.status, msgspec.json.decode(answer.body)

    def reason(self, pdu: dict[str, Any], **more: Any) -> str:
        status, answer = self.send(pdu, **more)
        assert (status, answer["accepted"]) == (400, [])
        (rejected,) = answer["rejected"]
        assert rejected["event_id"] == pdu["event_id"]
        return str(rejected["reason"])

    def texts(self) -> list[str]:
        listed = self.north.ask_for(self.alice, "GET", f"/channels/{self.channel}/messages")
        return [message["content"] for message in listed]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_events_are_taken_once(scene: Scene) -> None:
    pdu = scene.pdu()
    for _ in range(3):
        assert scene.send(pdu) == (
            202,
            {"origin": SOUTH, "accepted": [pdu["event_id"]], "rejected": [], "disabled": False},
        )
    assert scene.texts() == ["hello"]
    scene.north.deliver(SOUTH)
    mirrored = scene.south.ask_for(scene.bob, "GET", f"/channels/{scene.channel}/messages")
    assert [message["content"] for message in mirrored] == ["hello"]


def test_the_status_tells_whether_all_some_or_none_are_taken(scene: Scene) -> None:
    assert scene.send()[0] == 202
    status, answer = scene.send(scene.pdu("one"), scene.pdu("two", server_name=EAST), scene.pdu("three"))
    assert (status, len(answer["accepted"]), len(answer["rejected"])) == (207, 2, 1)
    assert scene.texts() == ["one", "three"]
    assert scene.send(scene.pdu(server_name=EAST))[0] == 400
    assert scene.send({"event_id": "$x"})[0] == 400


def test_reasons_in_their_order(scene: Scene) -> None:
    pdu = scene.pdu()
    assert scene.reason(pdu, origin=EAST) == f"received event from untrusted origin '{EAST}'"
    assert scene.reason(scene.pdu(server_name=EAST)) == f"event origin '{EAST}' mismatched transaction origin '{SOUTH}'"
    other = {**pdu, "origin_ts": pdu["origin_ts"] + 1}
    assert scene.reason(other).startswith("event id mismatch (expected $")
    assert scene.reason(other).endswith(f", got {pdu['event_id']})")
    missing = f"missing signature 'ed25519:1' for origin '{SOUTH}'"
    assert scene.reason({**pdu, "signatures": {}}) == missing
    assert scene.reason({**pdu, "signatures": {EAST: pdu["signatures"][SOUTH]}}) == missing
    short = base64.b64encode(b"short").decode()
    for text in (short, "not base64!"):
        assert scene.reason({**pdu, "signatures": {SOUTH: {"ed25519:1": text}}}) == "signature encoding invalid"
    assert scene.reason(scene.pdu(signer=STRANGER)) == "signature verification failed"
    assert scene.reason(scene.pdu(room_id="general")) == "delivery failed: invalid room id 'general'"
    nowhere = "00000000-0000-4000-8000-000000000000"
    assert scene.reason(scene.pdu(room_id=nowhere)) == "delivery failed: channel not found"
    assert scene.texts() == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"event_type": "m.room.message"}, "events of this type"),
        ({"content": {}}, "user.username|must|name"),
        ({"content": {"content": " x ", "author": {"id": "", "username": "bob"}}}, "author is not its sender"),
        ({"origin_ts_ms": 1}, "missing signature|ten minutes"),
        ({"sender": "00000000-0000-4000-8000-000000000000"}, "channel not found"),
        ({"sender": "alice"}, "UUID"),
    ],
)
def test_what_the_first_implementation_did_not_check(scene: Scene, changes: dict[str, Any], reason: str) -> None:
    told = scene.reason(scene.pdu(**changes))
    assert told.startswith(("delivery failed: ", "missing signature"))
    assert re.search(reason, told)
    assert scene.texts() == []


def test_a_user_of_the_server_itself_is_not_spoken_for(scene: Scene) -> None:
    alice_id = scene.north.ask_for(scene.alice, "GET", "/users/me")["user_id"]
    author = {"content": "x", "author": {"id": alice_id, "username": "alice"}}
    assert scene.reason(scene.pdu(sender=alice_id, content=author)).startswith("delivery failed: ")
    assert scene.texts() == []


def test_the_rights_of_the_sender_count(scene: Scene) -> None:
    path = f"/guilds/{scene.guild}/members/{scene.bob_id}"
    scene.north.ask_for(scene.alice, "PUT", path, {"role": "viewer"})
    assert scene.reason(scene.pdu()) == "delivery failed: your role does not permit this"
    scene.north.ask_for(scene.alice, "DELETE", path)
    assert scene.reason(scene.pdu()) == "delivery failed: channel not found"


def test_numbers_without_a_canonical_form_are_rejected(scene: Scene) -> None:
    content = {"content": "x", "author": {"id": scene.bob_id, "username": "bob"}, "more": 1}
    pdu = scene.pdu(content=content)
    pdu["content"]["more"] = 1.5
    assert "event id mismatch" in scene.reason(pdu)


def test_malformed_events_are_refused_whole(scene: Scene) -> None:
    status, answer = scene.send(scene.pdu(), {"event_id": 1})
    assert (status, answer["error"], answer["details"][0]["field"]) == (400, "validation_error", "pdus.1")
    assert scene.texts() == []


def test_where_federation_is_off(scene: Scene) -> None:
    settings = scene.north.service.settings
    off = msgspec.structs.replace(settings.federation, mode=Mode.OFF)
    scene.north.service.settings = msgspec.structs.replace(settings, federation=off)
    answer = scene.north.ask("POST", "/federation/transactions", {"origin": SOUTH, "pdus": []})
    body = decoded(answer)
    assert answer.status == 501
    assert body | {"origin": SOUTH, "accepted": [], "rejected": [], "disabled": True} == body
    answer = scene.north.ask("GET", f"/federation/channels/{scene.channel}/events")
    body = decoded(answer)
    assert (answer.status, body["error"]) == (501, "not_implemented")
    assert body | {"origin": NORTH, "channel_id": scene.channel, "events": []} == body


# --- reading -----------------------------------------------------------------------------------------


def read(server: Homeserver, channel: str, query: str = "") -> tuple[int, Any]:
    asked = AskPeer(server=NORTH, method="GET", target=f"/federation/channels/{channel}/events{query}")
    answer = server.perform(asked)
    return answer.status, msgspec.json.decode(answer.body)


def test_a_channel_is_read_by_servers_of_its_readers_only(scene: Scene) -> None:
    for text in ("one", "two", "three"):
        scene.north.ask_for(scene.alice, "POST", f"/channels/{scene.channel}/messages", {"content": text})
    status, page = read(scene.south, scene.channel, "?since=1&limit=1")
    assert (status, page["origin"], page["channel_id"]) == (200, NORTH, scene.channel)
    assert [(line["sequence"], line["channel_id"], line["event"]["content"]["content"]) for line in page["events"]] == [
        (2, scene.channel, "two")
    ]
    assert [line["sequence"] for line in read(scene.south, scene.channel)[1]["events"]] == [1, 2, 3]
    empty = {"origin": NORTH, "channel_id": scene.channel, "events": []}
    assert read(scene.federation[EAST], scene.channel) == (200, empty)
    nowhere = "00000000-0000-4000-8000-000000000000"
    assert read(scene.south, nowhere) == (200, {**empty, "channel_id": nowhere})
    scene.north.ask_for(scene.alice, "DELETE", f"/guilds/{scene.guild}/members/{scene.bob_id}")
    assert read(scene.south, scene.channel) == (200, empty)


def test_a_page_is_bounded_whatever_a_server_asks_for(scene: Scene) -> None:
    for number in range(MAX_PAGE_EVENTS + 1):
        scene.north.ask_for(scene.alice, "POST", f"/channels/{scene.channel}/messages", {"content": f"{number}"})
    for limit, most in ((2**63, MAX_PAGE_EVENTS), (MAX_PAGE_EVENTS + 1, MAX_PAGE_EVENTS), (0, 1), (-1, 1)):
        status, page = read(scene.south, scene.channel, f"?limit={limit}")
        assert (status, len(page["events"])) == (200, most)


def test_a_server_that_is_denied_in_the_guild_reads_no_channel_of_it(scene: Scene) -> None:
    for standing, status in ((Standing.DENY, 403), (Standing.QUARANTINE, 200), (None, 200)):
        scene.north.perform(RuleServer(server=SOUTH, guild_id=scene.guild, standing=standing, reason="spam", now_ms=0))
        scene.north.service.peers.drop(SOUTH)
        found, page = read(scene.south, scene.channel)
        assert found == status
        assert page.get("error") == ("server_denied" if status == 403 else None)


def test_an_unsigned_reader_is_refused(scene: Scene) -> None:
    assert scene.north.ask("GET", f"/federation/channels/{scene.channel}/events").status == 401


def test_the_context_of_a_guild(scene: Scene) -> None:
    def context(server: Homeserver, token: str) -> dict[str, Any]:
        found: dict[str, Any] = server.ask_for(token, "GET", f"/federation/guilds/{scene.guild}/context")
        return found

    found = context(scene.north, scene.alice)
    assert set(found) == {"guildId", "remoteServers", "trustLevel", "updatedAt"}
    assert (found["guildId"], found["remoteServers"], found["trustLevel"]) == (scene.guild, [SOUTH], "trusted")
    assert context(scene.south, scene.bob)["remoteServers"] == [NORTH]
    for standing, level in ((Standing.QUARANTINE, "limited"), (Standing.DENY, "untrusted")):
        rule = RuleServer(server=SOUTH, guild_id=scene.guild, standing=standing, reason="", now_ms=0)
        scene.north.perform(rule)
        scene.north.wall_ms += 1_001
        assert context(scene.north, scene.alice)["trustLevel"] == level
    stranger = scene.north.user("stranger")
    assert scene.north.ask("GET", f"/federation/guilds/{scene.guild}/context", token=stranger).status == 404


HEAVY: dict[str, dict[str, Any]] = {
    "many values": {"content": {"more": [[]] * 300}},
    "many events before it": {"prev_events": ["$1"] * 300},
    "many signatures": {"signatures": {SOUTH: {f"ed25519:{number}": "" for number in range(60)}}},
}


@pytest.mark.parametrize("case", HEAVY)
def test_events_that_take_long_to_verify_are_refused_whole(scene: Scene, case: str) -> None:
    """2 MiB of empty lists took seconds to encode."""
    pdu = scene.pdu()
    status, answer = scene.send(scene.pdu(), {**pdu, **HEAVY[case]})
    assert (status, answer["error"], answer["details"][0]["field"]) == (400, "validation_error", "pdus.1")
    assert scene.texts() == []
