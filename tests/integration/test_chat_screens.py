"""The terminal's second screen, and its list of channels, on a real server."""

from __future__ import annotations

import itertools
import re
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from textual import events
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Tree

from openguild_proto.client.message_list import MessageList
from openguild_runtime.chat.app import ChatApp, ChatScreen
from openguild_runtime.chat.login import LoginScreen
from openguild_runtime.client import ApiError, Client, LogFollowed, ReadPosition, Unauthorized
from tests.integration.test_chat import Terminal, meet, terminals
from tests.support.chat import PASSWORD
from tests.support.server import ServerProcess
from tests.support.waiting import eventually

__all__ = ["terminals"]

pytestmark = pytest.mark.anyio


async def test_the_password_is_changed_unseen(terminals: tuple[Terminal, Terminal], server: ServerProcess) -> None:
    alice, bob = terminals
    name = await meet(alice, bob)

    async def fill(*passwords: str) -> None:
        for field, password in zip(("current", "new", "again"), passwords, strict=True):
            alice.app.screen.query_one(f"#{field}", Input).value = password
        alice.app.screen.query_one("#change", Button).press()

    await alice.write(f"/password {PASSWORD}2")
    await alice.sees("write /password alone", "#typing")
    await alice.write("/password")
    await eventually(lambda: bool(alice.app.screen.query("#current")))
    await fill(PASSWORD, f"{PASSWORD}2", f"{PASSWORD}3")
    await alice.sees("the two new passwords differ", "#problem")
    await fill("wrong", f"{PASSWORD}2", f"{PASSWORD}2")
    await alice.sees("the current password is wrong", "#problem")
    await fill(PASSWORD, "short", "short")
    await alice.sees("8 characters", "#problem")
    await fill(PASSWORD, f"{PASSWORD}2", f"{PASSWORD}2")
    await eventually(lambda: isinstance(alice.app.screen, ChatScreen))
    await alice.sees("your password was changed", "#typing")
    await alice.write("said by the same session")
    await bob.sees("said by the same session")
    async with Client(server.base_url) as other:
        with pytest.raises(Unauthorized):
            await other.login(f"alice-{name}", PASSWORD)
        await other.login(f"alice-{name}", f"{PASSWORD}2")
    await bob.write("/password")
    await eventually(lambda: bool(bob.app.screen.query("#current")))
    await bob.pilot.press("escape")
    await bob.sees("was not changed", "#typing")


async def test_the_open_channel_is_in_sight_among_many(terminals: tuple[Terminal, Terminal]) -> None:
    alice, bob = terminals
    await meet(alice, bob)
    client = alice.app.client
    [guild] = [guild.guild_id async for guild in client.guilds()]
    made = [await client.create_channel(guild, f"room-{number}") for number in range(50)]
    last = made[-1].channel_id
    tree = bob.app.screen.query_one("#channels", Tree)

    def in_sight(channel_id: str) -> bool:
        lines = [node.data for guild in tree.root.children for node in (guild, *guild.children)]
        at = lines.index(channel_id) if channel_id in lines else -1
        return tree.scroll_offset.y <= at < tree.scroll_offset.y + tree.size.height

    await eventually(lambda: len(tree.root.children[0].children) == 51)
    first = bob.channel()
    assert in_sight(first)
    screen = bob.app.screen
    assert isinstance(screen, ChatScreen)
    screen._do(screen.model.open, last)
    await eventually(lambda: in_sight(last))
    tree.scroll_home(animate=False)
    await client.post(last, "the user scrolls where they like")
    await bob.sees("the user scrolls")
    assert in_sight(first)


async def test_a_user_can_chat_though_the_session_file_cannot_be_written(server: ServerProcess, tmp_path: Path) -> None:
    async with Client(server.base_url, session_file=tmp_path / "nowhere" / "session.json") as client:
        app = ChatApp(client)
        async with app.run_test(size=(100, 30), notifications=True) as pilot:
            alice = Terminal(app, pilot)
            await alice.register(f"alice-{uuid.uuid4().hex[:8]}")
            [told] = app._notifications
            assert re.match(r"cannot write .*session\.json \(No such file.*: you have to log in again", told.message)


async def test_lists_that_could_not_be_read_are_read_again(
    server: ServerProcess, terminals: tuple[Terminal, Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection stays meanwhile: an overloaded server refuses requests, and keeps its sockets."""
    alice, bob = terminals
    name = await meet(alice, bob)
    refused = list[str]()

    def refuse_twice(of: str) -> None:
        if refused.count(of) < 2:
            refused.append(of)
            raise ApiError(503, "overloaded", "the server is busy")

    request, unread, message_list = Client.request, Client.unread, Client.message_list

    async def request_later(
        client: Client, method: str, path: str, body: Any = None, *, authorized: bool = True
    ) -> Any:
        refuse_twice("guild")
        return await request(client, method, path, body, authorized=authorized)

    def unread_later(client: Client) -> AsyncIterator[ReadPosition]:
        refuse_twice("unread")
        return unread(client)

    async def page_later(client: Client, channel_id: str, user_id: str, *, limit: int = 50) -> MessageList:
        refuse_twice("page")
        return await message_list(client, channel_id, user_id, limit=limit)

    tree = bob.app.screen.query_one("#channels", Tree)
    screen = bob.app.screen
    assert isinstance(screen, ChatScreen)
    monkeypatch.setattr(screen.client, "jitter", lambda: 0.0)
    await alice.write("good morning")
    await bob.sees("good morning")
    async with Client(server.base_url) as device:
        await device.login(f"bob-{name}", PASSWORD)
        guild = (await device.create_guild("Coffee")).guild_id
        channel = (await device.create_channel(guild, "news")).channel_id
        await eventually(lambda: len(tree.root.children) == 2 and len(tree.root.children[1].children) == 1)
        monkeypatch.setattr(Client, "request", request_later)
        monkeypatch.setattr(Client, "unread", unread_later)
        monkeypatch.setattr(Client, "message_list", page_later)
        for log in (f"guild:{guild}", f"channel:{channel}", f"channel:{bob.channel()}"):
            await screen._handle(LogFollowed(log, 1, 99, 99, True))
        screen.model.guilds[guild] = "an old name"
        await eventually(lambda: sorted(refused) == ["guild", "guild", "page", "page", "unread", "unread"])
        await eventually(lambda: [str(node.label) for node in tree.root.children] == ["Tea", "Coffee"])
        await bob.sees("good morning")
        await eventually(lambda: not screen._reads)
    assert {one.head for one in screen.model.channels.values()} == {99}


@pytest.mark.parametrize("opened", ["/password", "ctrl+p"])
async def test_the_end_of_the_session_closes_the_screens_above_the_chat(
    server: ServerProcess, terminals: tuple[Terminal, Terminal], opened: str
) -> None:
    alice, _ = terminals
    name = f"alice-{uuid.uuid4().hex[:8]}"
    await alice.register(name)
    if opened == "ctrl+p":
        await alice.pilot.press(opened)
    else:
        await alice.write(opened)
    await eventually(lambda: isinstance(alice.app.screen, ModalScreen))
    async with Client(server.base_url, device_id=alice.app.client.device_id) as other:
        await other.login(name, PASSWORD)
        await eventually(lambda: isinstance(alice.app.screen, LoginScreen))
        await eventually(lambda: len(alice.app.screen_stack) == 2)


async def test_a_password_screen_that_is_left_early_claims_nothing(
    terminals: tuple[Terminal, Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, _ = terminals
    await alice.register(f"alice-{uuid.uuid4().hex[:8]}")
    asked = anyio.Event()

    async def unanswered(client: Client, current: str, new: str) -> None:
        asked.set()
        await anyio.sleep_forever()

    monkeypatch.setattr(Client, "change_password", unanswered)
    await alice.write("/password")
    await eventually(lambda: bool(alice.app.screen.query("#current")))
    alice.app.screen.query_one("#change", Button).press()
    await asked.wait()
    await alice.pilot.press("escape")
    await alice.sees("your password may have been changed", "#typing")


async def test_a_pasted_text_keeps_all_its_lines(terminals: tuple[Terminal, Terminal]) -> None:
    alice, _ = terminals
    await alice.register(f"alice-{uuid.uuid4().hex[:8]}")
    field = alice.app.screen.query_one("#line", Input)
    field.value = "so: "
    field.cursor_position = 4
    alice.app.post_message(events.Paste("one\r\ntwo\nthree\n"))
    await eventually(lambda: field.value == "so: one two three")


@pytest.mark.parametrize("size", [(20, 5), (40, 12), (100, 30)])
async def test_all_parts_have_their_place_on_a_small_screen(
    terminals: tuple[Terminal, Terminal], size: tuple[int, int]
) -> None:
    alice, bob = terminals
    await meet(alice, bob)
    await alice.write("hello")
    await bob.pilot.resize_terminal(*size)
    await eventually(lambda: bob.app.screen.size == size)
    await bob.sees("hello")
    parts = {name: bob.app.screen.query_one(f"#{name}") for name in ("channels", "page", "line", "status")}

    def are_visible() -> bool:
        regions = [part.region for part in parts.values()]
        areas = [region.intersection(bob.app.screen.region).area for region in regions]
        apart = not any(one.overlaps(other) for one, other in itertools.combinations(regions, 2))
        return apart and areas == [region.area for region in regions] and parts["page"].size.width >= size[0] // 2

    await eventually(are_visible)
