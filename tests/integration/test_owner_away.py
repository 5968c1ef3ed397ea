"""Clients on a server whose mirrored guild has lost its owner: no message is skipped, and the user is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from textual.widgets import Input

from openguild_proto.canonical.keys import encode_unpadded
from openguild_runtime.chat.app import ChatApp, ChatScreen
from openguild_runtime.client import ApiError, Client
from tests.support.chat import PASSWORD
from tests.support.server import ServerProcess
from tests.support.waiting import eventually, free_port, wait_until

pytestmark = pytest.mark.anyio

NAMES = "north.example", "south.example"


class Away(NamedTuple):
    """The server south, with bob and his channels. The server north, which owns them, has stopped."""

    south: ServerProcess
    begun: str  # five messages from before the mirror, three after it
    unread: str  # two messages from before the mirror, none after it


@pytest.fixture(scope="module")
def away(module_directory: Path, module_database: str) -> Iterator[Away]:
    ports = free_port(), free_port()
    addresses = ",".join(f"{name}=http://127.0.0.1:{port}" for name, port in zip(NAMES, ports, strict=True))
    with ExitStack() as running:
        north, south = (
            running.enter_context(
                ServerProcess(
                    module_directory, port=port, SERVER_NAME=name, **storage,
                    FEDERATION__MODE="open", FEDERATION__SIGNING_KEY=encode_unpadded(name.encode().ljust(32)),
                    FEDERATION__ADDRESSES=addresses, FEDERATION__ALLOW_PRIVATE_ADDRESSES="true",
                )
            )
            for name, port, storage in zip(NAMES, ports, ({"STORAGE": "memory"}, {"DATABASE_URL": module_database}), strict=True)
        )  # fmt: skip
        alice, bob = north.chat().user("alice"), south.chat().user("bob")
        guild = alice.post("/guilds", {"name": "far away"}).json()["guild_id"]
        unread, begun = (
            alice.post(f"/guilds/{guild}/channels", {"name": name}).json()["channel_id"] for name in ("unread", "begun")
        )
        for channel, numbers in ((begun, range(1, 6)), (unread, range(1, 3))):
            for number in numbers:
                alice.post(f"/channels/{channel}/messages", {"content": f"message {number}"})
        code = alice.post(f"/guilds/{guild}/invites", {}).json()["code"]
        assert bob.post(f"/invites/{code}@{NAMES[0]}/accept", {}).status_code == 200
        for number in range(6, 9):
            alice.post(f"/channels/{begun}/messages", {"content": f"message {number}"})
        wait_until(lambda: len(bob.get(f"/channels/{begun}/events?since=5").json()) == 3)
        assert len(bob.get(f"/channels/{begun}/events?since=0").json()) == 8
        north.stop()
        yield Away(south, begun, unread)


async def test_the_history_is_refused_where_it_would_have_a_hole(away: Away) -> None:
    async with Client(away.south.base_url, retry_secs=0.1) as client:
        await client.login("bob", PASSWORD)
        with pytest.raises(ApiError, match="guild_offline") as refused:
            [event async for event in client.history(away.begun)]
        assert (refused.value.status, refused.value.retry_after_secs) >= (503, 1)
        assert [event.sequence async for event in client.history(away.begun, since=5)] == [6, 7, 8]
        assert [event.sequence for event in await client.events(away.begun)] == [6, 7, 8]
        for bounds in ({"before": 6}, {"after": 4}, {"around": 2}):
            with pytest.raises(ApiError, match="guild_offline"):
                await client.messages(away.begun, **bounds)


async def test_the_terminal_tells_of_the_channel_that_it_cannot_read(away: Away) -> None:
    async with Client(away.south.base_url, retry_secs=0.1) as client:
        app = ChatApp(client)
        async with app.run_test(size=(100, 30)):
            await eventually(lambda: bool(app.screen.query("#name")))
            app.screen.query_one("#name", Input).value = "bob"
            app.screen.query_one("#password", Input).value = PASSWORD
            app.screen.query_one("#enter").press()  # type: ignore[attr-defined]  # a Button
            await eventually(lambda: isinstance(app.screen, ChatScreen) and "connected" in shown(app, "#status"))
            screen = app.screen
            assert isinstance(screen, ChatScreen)
            await eventually(
                lambda: screen.model.open_channel == away.unread and "cannot be reached" in shown(app, "#typing")
            )
            assert "not loaded yet" in shown(app, "#messages")
            await screen.model.open(away.begun)
            screen.show_note("")
            await eventually(lambda: "message 8" in shown(app, "#messages"))
            with pytest.raises(ApiError):
                await screen.model.open(away.unread)
            screen.show_note("")
            await eventually(lambda: "not loaded yet" in shown(app, "#messages"))


def shown(app: ChatApp, where: str) -> str:
    return "".join(str(each.render()) for each in app.screen.query(where))
