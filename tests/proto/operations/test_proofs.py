"""Receipts between two servers: what the owner signs, and what a mirror can check (PROTOCOL 16.9)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from openguild_proto.canonical.keys import decode_unpadded
from openguild_proto.canonical.receipts import chain_over, receipt_message
from openguild_proto.canonical.signing import verify
from openguild_proto.effects.federation import AskPeer, PeerAnswer
from openguild_proto.schemas.between_servers import LogProof, ProposalAnswer
from tests.support.homeservers import Federation, Homeserver

NORTH, SOUTH, EAST = "north.test", "south.test", "east.test"


class Shared:
    """A guild of the north with a channel, of which bob of the south is a member."""

    def __init__(self) -> None:
        self.federation = Federation(NORTH, SOUTH, EAST)
        self.north, self.south = self.federation[NORTH], self.federation[SOUTH]
        self.alice, self.bob = self.north.user("alice"), self.south.user("bob")
        self.guild = self.north.ask_for(self.alice, "POST", "/guilds", {"name": "far away"})["guild_id"]
        made = self.north.ask_for(self.alice, "POST", f"/guilds/{self.guild}/channels", {"name": "general"})
        self.channel = made["channel_id"]
        self.post(2)
        code = self.north.ask_for(self.alice, "POST", f"/guilds/{self.guild}/invites")["code"]
        self.south.ask_for(self.bob, "POST", f"/invites/{code}@{NORTH}/accept")

    def post(self, count: int) -> None:
        for _ in range(count):
            self.north.ask_for(self.alice, "POST", f"/channels/{self.channel}/messages", {"content": "hi"})

    def ask(self, query: str, log_id: str | None = None, server: Homeserver | None = None) -> PeerAnswer:
        target = f"/federation/v1/logs/{log_id or self.channel}/proof{query}"
        answer = (server or self.south).perform(AskPeer(server=NORTH, method="GET", target=target))
        assert isinstance(answer, PeerAnswer)
        return answer

    def proof(self, query: str, log_id: str | None = None) -> LogProof:
        answer = self.ask(query, log_id)
        assert answer.status == 200, answer.body
        return msgspec.json.decode(answer.body, type=LogProof)


def check(shared: Shared, proof: LogProof) -> None:
    ids = list(enumerate(proof.events, start=proof.first))
    last = proof.first + len(ids) - 1
    value = chain_over(decode_unpadded(proof.before), proof.log_id, proof.epoch, ids)
    assert decode_unpadded(proof.chain) == value
    assert proof.receipt is not None
    message = receipt_message(value, proof.log_id, proof.epoch, last)
    assert verify(shared.north.signer.public, message, decode_unpadded(proof.receipt))


def test_a_proof_shows_what_a_receipt_stands_for() -> None:
    shared = Shared()
    shared.post(5)
    for query, first, count in (
        ("?from=3", 3, 5),
        ("?from=4&to=6", 4, 3),
        ("", 7, 1),
        ("?to=5", 5, 1),
        ("?from=7&to=99", 7, 1),
    ):
        proof = shared.proof(query)
        assert (proof.first, len(proof.events)) == (first, count)
        check(shared, proof)
    listed = shared.north.ask_for(shared.alice, "GET", f"/channels/{shared.channel}/events")
    assert shared.proof("?from=3").events == [line["event"]["event_id"] for line in listed[2:]]
    assert shared.ask("", shared.guild).status == 404, "its chain begins at the join"
    shared.north.ask_for(shared.alice, "PATCH", f"/guilds/{shared.guild}", {"name": "further away"})
    check(shared, shared.proof("", shared.guild))


def test_a_mirror_begins_with_the_chain_of_the_snapshot() -> None:
    shared = Shared()
    mirror = shared.south.tables._state.mirrors[shared.channel]
    begun = mirror.chain
    shared.post(3)
    assert begun == decode_unpadded(shared.proof("?from=3&to=3").before)
    shared.north.deliver(SOUTH)
    assert mirror.chain == decode_unpadded(shared.proof("").chain)


def test_the_answer_to_a_proposal_has_a_receipt() -> None:
    shared = Shared()
    answers: list[ProposalAnswer] = []
    perform = shared.south.perform

    def watched(effect: Any) -> Any:
        answer = perform(effect)
        if isinstance(effect, AskPeer) and effect.target.endswith("/proposals"):
            answers.append(msgspec.json.decode(answer.body, type=ProposalAnswer))
        return answer

    shared.south.perform = watched  # type: ignore[method-assign]  # to see what the owner says
    shared.south.ask_for(shared.bob, "POST", f"/channels/{shared.channel}/messages", {"content": "hello"})
    (answer,) = answers
    assert answer.receipt is not None
    assert answer.receipt == shared.proof("").receipt


@pytest.mark.parametrize("query", ["?from=0", "?from=4&to=3", "?from=99", "?from=x", "?from=-1", "?to=0"])
def test_what_the_log_does_not_have_is_refused(query: str) -> None:
    assert Shared().ask(query).status == 400


def test_a_receipt_before_the_chain_begins_is_not_found() -> None:
    assert Shared().ask("?from=1&to=1").status == 404


def test_only_servers_that_mirror_the_log_may_ask() -> None:
    shared = Shared()
    assert shared.ask("", server=shared.federation[EAST]).status == 404
    assert shared.ask("", log_id="00000000-0000-4000-8000-000000000000").status == 404
    shared.south.ask_for(shared.bob, "DELETE", f"/guilds/{shared.guild}/members/@me")
    assert shared.ask("").status == 404
