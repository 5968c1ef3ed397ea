"""Two users chat in two terminals, on a real server."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator

import anyio
import httpx
import pytest
from textual.pilot import Pilot
from textual.widgets import Button, Footer, Input, Static, Tree

from openguild_proto.client import AccountLogs
from openguild_proto.client.message_list import MessageList
from openguild_runtime.chat.app import ChatApp, ChatScreen
from openguild_runtime.client import Client, Gateway, NotFound
from tests.support.chat import PASSWORD
from tests.support.proxy import Proxy
from tests.support.server import ServerProcess
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio


class Terminal:
    """The terminal of one user."""

    def __init__(self, app: ChatApp, pilot: Pilot[None]) -> None:
        self.app = app
        self.pilot = pilot

    async def register(self, name: str) -> None:
        await eventually(lambda: bool(self.app.screen.query("#name")))
        self.app.screen.query_one("#name", Input).value = name
        self.app.screen.query_one("#password", Input).value = PASSWORD
        self.app.screen.query_one("#register", Button).press()
        await eventually(lambda: isinstance(self.app.screen, ChatScreen))
        await eventually(lambda: "connected" in self.text("#status"))

    async def is_refused(self, name: str, password: str, button: str, pattern: str) -> None:
        await eventually(lambda: bool(self.app.screen.query("#name")))
        self.app.screen.query_one("#name", Input).value = name
        self.app.screen.query_one("#password", Input).value = password
        self.app.screen.query_one(button, Button).press()
        await self.sees(pattern, "#problem")

    async def write(self, line: str) -> None:
        box = self.app.screen.query_one("#line", Input)
        box.value = line
        await box.action_submit()

    def channel(self) -> str:
        screen = self.app.screen
        assert isinstance(screen, ChatScreen)
        assert screen.model.open_channel is not None
        return screen.model.open_channel

    def text(self, where: str) -> str:
        """Return the text of a widget; empty if the screen has not been drawn yet."""
        return "".join(str(shown.render()) for shown in self.app.screen.query(where).results(Static))

    async def sees(self, pattern: str, where: str = "#messages") -> None:
        await eventually(lambda: re.search(pattern, self.text(where)), what=f"{pattern} in {where}")


@pytest.fixture
async def terminals(server: ServerProcess) -> AsyncIterator[tuple[Terminal, Terminal]]:
    async with Client(server.base_url) as one, Client(server.base_url) as two:
        alice, bob = ChatApp(one), ChatApp(two)
        async with alice.run_test(size=(100, 30)) as hers, bob.run_test(size=(100, 30)) as his:
            yield Terminal(alice, hers), Terminal(bob, his)


async def meet(alice: Terminal, bob: Terminal) -> str:
    """Register both, and let bob join a guild of alice. Return the suffix of their names."""
    name = uuid.uuid4().hex[:8]
    await alice.register(f"alice-{name}")
    await bob.register(f"bob-{name}")
    await alice.write("/guild Tea")
    await alice.sees("/join ", "#typing")
    await bob.write(alice.text("#typing").partition(": ")[2])
    await bob.sees("no messages")
    return name


async def test_two_people_chat(terminals: tuple[Terminal, Terminal]) -> None:
    alice, bob = terminals
    name = uuid.uuid4().hex[:8]
    await alice.is_refused(f"alice-{name}", "short", "#register", "password.*8 characters")
    await alice.is_refused(f"alice-{name}", PASSWORD, "#enter", "Press Register")
    await alice.register(f"alice-{name}")
    await bob.register(f"bob-{name}")
    await alice.write("/help")
    await alice.sees(r"/react \[N\] EMOJI", "#typing")
    await alice.write("/guild Tea [room]")
    tree = alice.app.screen.query_one("#channels", Tree)
    await eventually(lambda: [str(node.label) for node in tree.root.children] == ["Tea [room]"])
    await alice.sees("/join ", "#typing")
    await bob.write(alice.text("#typing").partition(": ")[2])
    await bob.sees("no messages")
    await alice.write("hello [bold]Bob[/bold]")
    await bob.sees(r"1 alice-\w+  hello \[bold\]Bob")
    await bob.write("/reply 1 hello Alice")
    await alice.sees(r"> alice-\w+: hello.*\n.*2 bob-\w+  hello Alice")
    await alice.write(f"/edit good morning @BOB-{name}, and @nobody")
    await bob.sees(rf"good morning @bob-{name}, and @nobody \(edited\)")
    [now] = [one for one in await bob.app.client.messages(bob.channel()) if one.sequence == 1]
    assert now.content is not None
    assert now.content.startswith("good morning <@")
    await bob.write("/react 1 👋")
    await alice.sees("👋 1")
    await bob.write("/react 1 👋")
    await bob.write("/react 2 rude")
    await alice.sees("rude 1")
    await bob.write("/clear 2")
    await bob.sees("your role does not permit this", "#typing")
    await alice.write("/clear 2 rude")
    await eventually(lambda: "rude 1" not in bob.text("#messages"))
    await alice.write("/pin 2")
    await bob.sees(r"hello Alice \(pinned\)")
    await alice.write("/search morning")
    await alice.sees("#general 1 .*good.*morning", "#typing")
    await alice.write("/delete 1")
    await bob.sees("deleted")
    await bob.write("/nonsense")
    await bob.sees("is not a command", "#typing")
    for line, usage in (("/reply hey", r"/reply N TEXT"), ("/react", r"/react \[N\] EMOJI"), ("/guild", "/guild NAME")):
        await bob.write(line)
        await bob.sees(f"^write {usage}$", "#typing")
    await alice.write("/members")
    await alice.sees(rf"bob-{name}", "#typing")
    await alice.write("/channel news")
    await alice.sees("no messages")
    await alice.write("in another channel")
    screen = bob.app.screen
    assert isinstance(screen, ChatScreen)
    await eventually(lambda: [one.unread for one in screen.model.channels.values()] == [0, 1])
    await bob.pilot.press("ctrl+n")
    await bob.sees("in another channel")
    await eventually(lambda: [one.unread for one in screen.model.channels.values()] == [0, 0])
    await bob.sees("2 online", "#status")


async def test_typing_is_told_seldom_and_ends_by_itself(
    terminals: tuple[Terminal, Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = terminals
    name = await meet(alice, bob)
    await alice.write("good morning")
    await bob.sees("good morning")  # a hint reaches only those who follow the channel already
    await alice.write("/help")
    told = list[str]()
    typing = Client.typing

    async def note(client: Client, channel_id: str, preview: str | None = None) -> None:
        told.append(channel_id)
        await typing(client, channel_id, preview)

    monkeypatch.setattr(Client, "typing", note)
    monkeypatch.setattr("openguild_proto.client.typing_users.TYPING_SHOWN_SECS", 2.0)  # long enough for a busy machine
    for end in range(1, 6):
        alice.app.screen.query_one("#line", Input).value = "hello"[:end]
        await alice.pilot.pause()
    await bob.sees(f"alice-{name} is writing", "#typing")
    await eventually(lambda: "is writing" not in bob.text("#typing"))
    assert len(told) == 1


async def test_a_guild_joined_and_left_on_another_device_comes_and_goes(
    server: ServerProcess, terminals: tuple[Terminal, Terminal]
) -> None:
    alice, bob = terminals
    name = uuid.uuid4().hex[:8]
    await alice.register(f"alice-{name}")
    await bob.register(f"bob-{name}")
    await alice.write("/guild Tea")
    await alice.sees("/join ", "#typing")
    code = alice.text("#typing").partition("/join ")[2]
    tree = bob.app.screen.query_one("#channels", Tree)
    assert list(tree.root.children) == []
    async with Client(server.base_url) as device:
        await device.login(f"bob-{name}", PASSWORD)
        guild = (await device.accept_invite(code)).guild_id
        await eventually(lambda: [str(node.label) for node in tree.root.children] == ["Tea"])
        await alice.write("hello")
        await eventually(lambda: [str(leaf.label) for leaf in tree.root.children[0].children] == ["# general (1)"])
        await bob.pilot.press("ctrl+n")
        await bob.sees("hello")
        await device.send("DELETE", f"/guilds/{guild}/members/@me")
    await eventually(lambda: list(tree.root.children) == [])
    await bob.sees("no channel is open")


async def test_who_is_online_is_read_again_after_a_reconnection(server: ServerProcess) -> None:
    proxy = Proxy(server.port)
    async with anyio.create_task_group() as tasks:
        await proxy.start(tasks)
        async with Client(server.base_url) as alice, Client(f"http://127.0.0.1:{proxy.port}") as client:
            name = uuid.uuid4().hex[:8]
            await alice.register(f"alice-{name}", PASSWORD)
            await alice.login(f"alice-{name}", PASSWORD)
            invite = await alice.create_invite((await alice.create_guild("tea")).guild_id)
            app = ChatApp(client)
            async with app.run_test(size=(100, 30)) as pilot:
                bob = Terminal(app, pilot)
                await bob.register(f"bob-{name}")
                await bob.write(f"/join {invite.code}")
                async with alice.gateway():
                    await bob.sees("2 online", "#status")
                    proxy.cut()
                    await bob.sees("reconnecting", "#status")
                [guild] = [guild async for guild in alice.guilds()]
                await eventually(lambda: nobody_is_online(alice, guild.guild_id), what="all have gone")
                proxy.heal()
                await bob.sees("connected, 1 online", "#status")
        tasks.cancel_scope.cancel()


async def test_a_first_channel_that_is_gone_does_not_end_the_chat(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(client: Client, channel_id: str, user_id: str) -> MessageList:
        raise NotFound(404, "not_found", "it was deleted")

    monkeypatch.setattr(Client, "message_list", gone)
    async with Client(server.base_url) as client:
        name = f"alice-{uuid.uuid4().hex[:8]}"
        await client.register(name, PASSWORD)
        await client.login(name, PASSWORD)
        await client.create_channel((await client.create_guild("tea")).guild_id, "general")
        app = ChatApp(client)
        async with app.run_test(size=(100, 30)) as pilot:
            alice = Terminal(app, pilot)
            await alice.sees("it was deleted", "#typing")
            await alice.sees("connected", "#status")


async def test_a_message_between_the_unread_counts_and_the_log_is_counted(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Client(server.base_url) as alice, Client(server.base_url) as client:
        name = uuid.uuid4().hex[:8]
        for one in (alice, client):
            await one.register(f"{name}-{one.device_id}", PASSWORD)
            await one.login(f"{name}-{one.device_id}", PASSWORD)
        guild = (await alice.create_guild("tea")).guild_id
        [_, news] = [(await alice.create_channel(guild, name)).channel_id for name in ("general", "news")]
        await client.accept_invite((await alice.create_invite(guild)).code)
        app = ChatApp(client)
        list_channels = Gateway._list_channels

        async def list_later(gateway: Gateway, logs: AccountLogs, guild_id: str) -> None:
            await eventually(lambda: isinstance(app.screen, ChatScreen) and app.screen._is_loaded)
            await alice.post(news, "between")
            await list_channels(gateway, logs, guild_id)

        monkeypatch.setattr(Gateway, "_list_channels", list_later)
        async with app.run_test(size=(100, 30)):
            await eventually(lambda: bool(app.screen.query("#channels")))
            tree, labels = app.screen.query_one("#channels", Tree), ["# general", "# news (1)"]
            await eventually(
                lambda: [str(leaf.label) for node in tree.root.children for leaf in node.children] == labels
            )


async def nobody_is_online(client: Client, guild_id: str) -> bool:
    return not (await client.presence(guild_id)).members


async def test_a_limit_of_reading_does_not_disturb_the_reader(
    server: ServerProcess, terminals: tuple[Terminal, Terminal]
) -> None:
    alice, bob = terminals
    name = uuid.uuid4().hex[:8]
    await alice.register(f"alice-{name}")
    await bob.register(f"bob-{name}")
    await spend_reads(server.base_url, bob.app.client)
    await alice.write("/guild Tea room")
    await alice.sees("/join ", "#typing")
    join = alice.text("#typing").partition(": ")[2].replace("/join ", "/join http://127.0.0.1:8081/#invite=")
    await alice.write("hello")
    await bob.write(join)
    await bob.sees("hello")
    await bob.write("hello you")
    await alice.sees("hello you")
    assert isinstance(bob.app.screen, ChatScreen)
    assert "connected" in bob.text("#status")


async def spend_reads(url: str, client: Client) -> None:
    """Move read positions until the rate limit refuses."""
    assert client.session is not None
    headers = {"authorization": f"Bearer {client.session.access_token}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, verify=False) as http:
        while (await http.post(f"/client/v1/channels/{uuid.uuid4()}/read")).status_code != 429:
            pass


async def test_the_newest_message_is_shown_behind_long_ones(terminals: tuple[Terminal, Terminal]) -> None:
    alice, bob = terminals
    await meet(alice, bob)
    page = bob.app.screen.query_one("#page")

    def end() -> bool:
        return 0 < page.max_scroll_y == page.scroll_offset.y

    await alice.app.client.post(alice.channel(), "\n".join(f"line {number}" for number in range(60)))
    await alice.app.client.post(alice.channel(), "behind it")
    await bob.sees("behind it")
    await eventually(end)
    await bob.pilot.press("pageup")
    await eventually(lambda: page.scroll_offset.y < page.max_scroll_y)
    await alice.app.client.post(alice.channel(), "while bob reads older ones")
    await bob.sees("while bob reads")
    assert not end()
    await bob.pilot.press("pagedown", "pagedown")
    await eventually(end)
    await alice.app.client.post(alice.channel(), "and the next")
    await bob.sees("and the next")
    await eventually(end)


async def test_a_line_that_is_not_done_comes_back(terminals: tuple[Terminal, Terminal]) -> None:
    alice, bob = terminals
    await meet(alice, bob)
    field = alice.app.screen.query_one("#line", Input)
    await alice.write("/reply 99 thought about for long")
    await alice.sees("there is no message with the number", "#typing")
    assert field.value == "/reply 99 thought about for long"
    await alice.write("word " * 1_000)
    await alice.sees("content", "#typing")
    assert field.value == "word " * 1_000
    await bob.write("rude")
    await alice.sees("1 bob-.*rude")
    await alice.write("/delete 1")
    await alice.sees("reason must be provided", "#typing")
    await alice.write("/delete 1 too rude")
    await bob.sees("deleted")


async def test_texts_are_no_commands_to_the_terminal(terminals: tuple[Terminal, Terminal]) -> None:
    alice, bob = terminals
    await meet(alice, bob)
    await alice.app.client.post(alice.channel(), "to the clipboard\x1b]52;c;eA==\x07, and clear\x9b2J")
    await bob.sees("to the clipboard.*clear")
    await bob.write("/reply 1 noted")
    await alice.sees("> .*clipboard")
    await alice.write("/search clipboard")
    await alice.sees("clipboard", "#typing")
    for terminal in (alice, bob):
        for where in ("#messages", "#typing"):
            assert re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", terminal.text(where)) is None


async def test_what_comes_while_the_screen_is_taken_down_is_drawn_without_failure(
    terminals: tuple[Terminal, Terminal],
) -> None:
    alice, _ = terminals
    await alice.register(f"alice-{uuid.uuid4().hex[:8]}")
    await alice.write("/guild Tea")
    await alice.sees("/join ", "#typing")
    screen = alice.app.screen
    assert isinstance(screen, ChatScreen)
    await screen.query("*").remove()
    screen.show_note("late")
    await alice.app.client.post(alice.channel(), "later still")
    await eventually(lambda: screen.model.shown is not None and len(screen.model.shown.messages) == 1)


@pytest.mark.parametrize("key", ["ctrl+c", "ctrl+q"])
async def test_a_key_that_the_first_screen_names_and_ctrl_c_end_the_chat(key: str) -> None:
    async with Client("http://127.0.0.1:9") as client:
        app = ChatApp(client)
        async with app.run_test() as pilot:
            await eventually(lambda: bool(app.screen.query(Footer)))
            assert app.return_code is None
            await pilot.press(key)
            await eventually(lambda: app.return_code == 0)
