"""The commands of the terminal chat, where what they are about has gone."""

from __future__ import annotations

import json

import pytest

from openguild_proto.gateway.client_events import Delivered
from openguild_runtime.chat.commands import Commands, NoCommand, whom
from openguild_runtime.chat.model import ChatModel, ShownChannel
from openguild_runtime.client import Client, OutcomeUnknown
from openguild_runtime.client.log_events import log_event

pytestmark = pytest.mark.anyio
CHANNEL, GUILD, USER = (f"0198c0de-0000-7000-8000-{number:012}" for number in range(3))


@pytest.fixture
def model() -> ChatModel:
    """One guild with one channel, which is open."""
    model = ChatModel(Client("http://127.0.0.1:1"))
    model.guilds[GUILD] = "tea"
    model.channels[CHANNEL] = ShownChannel(CHANNEL, GUILD, "general")
    model.open_channel = CHANNEL
    return model


@pytest.mark.parametrize("line", ["/invite", "/members", "/bans", "/ban bob", "/channel news"])
async def test_a_channel_that_is_not_known_has_no_guild(model: ChatModel, line: str) -> None:
    """Such as a new one of another server's guild, whose log has not come yet."""
    del model.channels[CHANNEL]
    with pytest.raises(NoCommand, match="is unknown"):
        await Commands(model, lambda text: None).do(line)


async def test_a_deleted_channel_is_closed_though_its_log_is_not_gone_yet(model: ChatModel) -> None:
    event = {
        "schema_version": 1, "event_id": "$e", "origin_server": "s", "room_id": GUILD, "event_type": "channel.deleted",
        "sender": USER, "origin_ts": 0, "prev_events": [], "auth_events": [], "signatures": {},
        "content": {"channel_id": CHANNEL, "name": "general", "place": {"epoch": 1, "sequence": 1}},
    }  # fmt: skip
    model.apply(log_event(model.client, Delivered(f"guild:{GUILD}", 1, 1, json.dumps(event).encode())))
    with pytest.raises(NoCommand, match="no channel is open"):
        await Commands(model, lambda text: None).do("/invite")


BOB, BOB_TWO, BOBBY, OTHER = (f"0198c0de-0000-7000-8000-{number:012}" for number in range(10, 14))
NAMED = {BOB: "Bob", BOB_TWO: "bob two", BOBBY: "bobby"}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("bob", (BOB, None)),
        ("@Bob too loud", (BOB, "too loud")),
        ("bob two times", (BOB_TWO, "times")),
        ("bobby", (BOBBY, None)),
        (f"{OTHER.upper()} spam", (OTHER, "spam")),
    ],
)
def test_whom_a_line_means_and_why(written: str, meant: tuple[str, str | None]) -> None:
    assert whom(written, NAMED) == meant


@pytest.mark.parametrize(("written", "why"), [("eve", "nobody here"), ("bob", "2 members"), ("@", "nobody here")])
def test_nobody_is_meant_by_an_unknown_name_or_one_of_several(written: str, why: str) -> None:
    with pytest.raises(NoCommand, match=why):
        whom(written, {BOB: "bob", BOBBY: "BOB"})


async def test_a_post_of_unknown_outcome_that_is_written_again_is_the_same_one(
    model: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    nonces = list[str | None]()

    async def post(
        client: Client, channel_id: str, text: str, *, reply_to: str | None = None, nonce: str | None = None
    ) -> None:
        nonces.append(nonce)
        if len(nonces) < 3:
            raise OutcomeUnknown("no answer", nonce or "first")

    monkeypatch.setattr(Client, "post", post)
    commands = Commands(model, lambda text: None)
    for _ in range(2):
        with pytest.raises(OutcomeUnknown):
            await commands.do("hello")
    await commands.do("hello")
    await commands.do("hello")
    assert nonces == [None, "first", "first", None]
