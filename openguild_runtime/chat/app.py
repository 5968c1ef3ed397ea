"""The app and its main screen."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import ClassVar

import anyio
from rich.text import Text
from textual import on, work
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import Screen
from textual.widgets import Footer, Input, Static, Tree
from textual.widgets.tree import TreeNode

from openguild_proto.client import Backoff
from openguild_runtime.chat.commands import HELP, Commands, NoCommand
from openguild_runtime.chat.line_input import LineInput
from openguild_runtime.chat.login import LoginScreen
from openguild_runtime.chat.model import ChatModel, ShownChannel, is_passing
from openguild_runtime.chat.password import PasswordScreen
from openguild_runtime.chat.render import channel_label, message_lines, plain, problem_text
from openguild_runtime.client import (
    ApiError,
    Client,
    Connected,
    Event,
    LogFollowed,
    OutcomeUnknown,
    StreamEnded,
    Unauthorized,
)

REFRESH_SECS = 0.05  # between two redraws after events, which can be many at once
TYPING_EVERY_SECS = 3.0  # others show a signal for TYPING_SHOWN_SECS
NOT_TOLD = ("", -math.inf)
TIMER_MARGIN_SECS = 0.05  # a timer may be early


class ChatScreen(Screen[None]):
    """Guilds and channels next to the messages of one channel. The client is logged in; the screen closes with its session."""

    CSS = """
    #channels { width: 30; max-width: 40%; border-right: solid $primary; }
    #page { height: 1fr; padding: 0 1; }
    #typing { height: auto; min-height: 1; max-height: 10; color: $text-muted; }
    #status { height: 1; background: $panel; }
    ChatScreen.-low #line { height: 1; border: none; padding: 0; }
    ChatScreen.-low #typing { max-height: 2; }
    ChatScreen.-low Footer { display: none; }
    """
    VERTICAL_BREAKPOINTS = [(0, "-low"), (16, "-tall")]
    BINDINGS: ClassVar = [
        ("ctrl+n", "next_unread", "next unread"),
        ("ctrl+g", "focus_channels", "channels"),
        ("escape", "focus_input", "write"),
        ("pageup", "older", "older"),
        Binding("pagedown", "newer", "newer", show=False),
    ]

    def __init__(self, client: Client) -> None:
        super().__init__()
        self.client = client
        self.model = ChatModel(client)
        self._commands = Commands(self.model, self.show_note, self._change_password)
        self._note = ""
        self._is_loaded = False
        self._reads: dict[str, bool] = {}  # what is being read in the background, and whether to read it once more
        self._told_typing = NOT_TOLD  # channel and time of the last typing signal
        self._typing_ends: asyncio.TimerHandle | None = None
        self._refresh_is_due: asyncio.TimerHandle | None = None
        # Kept here instead of queried, because events may still be drawn while the screen is removed.
        self._channels: Tree[str] = Tree("guilds", id="channels")
        self._listed: list[tuple[str, list[str]]] = []  # names of guilds with the IDs of their channels
        self._lines: dict[str, tuple[tuple[object, ...], TreeNode[str]]] = {}  # by channel ID: drawn state and line
        self._page = VerticalScroll(id="page", can_focus=False)  # anchored at its end, until the user scrolls up
        self._messages = Static("", id="messages")
        self._page_of: str | None = None  # the channel on the page
        self._scrolled_to: str | None = None  # the open channel to which the list was last scrolled
        self._typing = Static("", id="typing")
        self._line = LineInput(placeholder="write, or /help", id="line")
        self._status = Static("", id="status")

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield self._channels
            with Vertical():
                with self._page:
                    yield self._messages
                yield self._typing
                yield self._line
        yield self._status
        yield Footer()

    def on_mount(self) -> None:
        """Show the channels and chat until the session ends."""
        self._channels.show_root = False
        self._line.focus()
        self._chat()

    @work(exclusive=True, group="chat")
    async def _chat(self) -> None:
        backoff = Backoff(self.client.jitter, base_secs=1.0)
        while True:
            try:
                await self._follow()
                return
            except (ApiError, StreamEnded, OutcomeUnknown) as failure:
                if not is_passing(failure):
                    self.app.notify(problem_text(failure), severity="error", markup=False)
                    while self.app.screen is not self:  # `dismiss` would close only the screen on top
                        await self.app.pop_screen()
                    self.dismiss(None)
                    return
                delay = backoff.next_delay(getattr(failure, "retry_after_secs", None))
                self.model.status = f"{problem_text(failure)}; again in {delay:.0f} s"
                self._refresh()
                await anyio.sleep(delay)

    async def _follow(self) -> None:
        async with self.client.gateway() as events:
            async for event in events:
                await self._handle(event)

    async def _handle(self, event: Event) -> None:
        self.model.apply(event)
        if isinstance(event, Connected):  # events that arrive while the lists are read are handled after them
            await self._connected()
        if isinstance(event, LogFollowed) and self.model.note_followed(event):
            self._read("page", self.model.reopen)
        self._read_wanted()
        self.model.read()
        self._refresh_soon()

    async def _connected(self) -> None:
        if self._is_loaded:
            self._read("presence", self.model.read_presence)  # changes of presence are not in a log
            self._read("page", self.model.reopen)
            return
        await self.model.load()
        self._is_loaded = True
        if self.model.channels and self.model.open_channel is None:
            await self._open_first(next(iter(self.model.channels)))

    def _read_wanted(self) -> None:
        for guild_id in self.model.guilds_to_add():
            self._read(guild_id, partial(self.model.add_guild, guild_id))
        if self.model.wants_unread():
            self._read("unread", self.model.read_unread)

    def _read(self, what: str, read: Callable[[], Awaitable[None]]) -> None:
        """Read `what` in the background, or once more if it is being read."""
        is_reading = what in self._reads
        self._reads[what] = True
        if not is_reading:
            self._read_until_done(what, read)

    @work(group="read")
    async def _read_until_done(self, what: str, read: Callable[[], Awaitable[None]]) -> None:
        backoff = Backoff(self.client.jitter, base_secs=1.0)
        while self._reads[what]:
            self._reads[what] = False
            try:
                await read()
            except (ApiError, OutcomeUnknown) as failure:
                if is_passing(failure):
                    self._reads[what] = True
                    await anyio.sleep(backoff.next_delay(getattr(failure, "retry_after_secs", None)))
                else:
                    self._note = problem_text(failure)
            self._refresh()
        del self._reads[what]

    async def _open_first(self, channel_id: str) -> None:
        try:
            await self.model.open(channel_id)
        except ApiError as failure:
            if isinstance(failure, Unauthorized) or (is_passing(failure) and failure.code != "guild_offline"):
                raise
            self.show_note(problem_text(failure))  # only this channel is deleted, or its server cannot be reached

    # --- input ---------------------------------------------------------------------------------------

    @on(Tree.NodeSelected, "#channels")
    def channel_selected(self, event: Tree.NodeSelected[str]) -> None:
        """Open the selected channel."""
        if event.node.data is not None:
            self._do(self.model.open, event.node.data)
            self._line.focus()

    @on(Input.Submitted, "#line")
    def line_given(self, event: Input.Submitted) -> None:
        """Post the line, or run its command."""
        event.input.value = ""
        self._told_typing = NOT_TOLD
        self.workers.cancel_group(self, "typing")  # a late signal would mean that the user is still typing
        if event.value.strip():
            self._write(event.value)

    @on(Input.Changed, "#line")
    def line_changed(self, event: Input.Changed) -> None:
        """Send a typing signal, at most every TYPING_EVERY_SECS."""
        channel_id, now = self.model.open_channel, self.client.sources.monotonic()
        told, told_at = self._told_typing
        if not event.value or event.value.startswith("/") or channel_id is None:
            return
        if channel_id != told or now - told_at >= TYPING_EVERY_SECS:
            self._told_typing = channel_id, now
            self._tell_typing(channel_id)

    @work(exclusive=True, group="typing")
    async def _tell_typing(self, channel_id: str) -> None:
        with suppress(ApiError, OutcomeUnknown):  # only a hint, which may be lost
            await self.client.typing(channel_id)

    @work(group="do")
    async def _do(self, action: Callable[[str], Awaitable[None]], argument: str) -> None:
        problem = await self._attempt(action, argument)
        if problem is not None:
            self.show_note(problem)
        self._read_wanted()
        self._refresh()

    @work(group="do")
    async def _write(self, line: str) -> None:
        """Run a line. If that fails, put it back into the input."""
        channel_id = self.model.open_channel
        problem = await self._attempt(self._commands.do, line)
        if problem is not None and (self._line.value or self.model.open_channel != channel_id):
            self.show_note(f"{problem}: {line}")
        elif problem is not None:
            self.show_note(problem)
            with self._line.prevent(Input.Changed):  # without a typing signal
                self._line.value = line
            self._line.cursor_position = len(line)
        self._read_wanted()
        self._refresh()

    async def _attempt(self, action: Callable[[str], Awaitable[None]], argument: str) -> str | None:
        """Run an action, and return the problem, or None."""
        try:
            await action(argument)
        except NoCommand as problem:
            return str(problem)
        except (ApiError, OutcomeUnknown) as failure:
            return problem_text(failure)
        return None

    def action_next_unread(self) -> None:
        """Open the next channel with unread messages."""
        unread = [channel for channel in self.model.channels.values() if channel.unread]
        if unread:
            self._do(self.model.open, unread[0].channel_id)

    def action_focus_channels(self) -> None:
        """Focus the list of channels."""
        self._channels.focus()

    def action_focus_input(self) -> None:
        """Focus the input."""
        self._line.focus()

    def action_older(self) -> None:
        """Scroll to earlier messages."""
        self._page.scroll_page_up(animate=False)

    def action_newer(self) -> None:
        """Scroll to later messages, and at the end follow new ones."""
        page = self._page
        if page.scroll_offset.y + 2 * page.size.height >= page.virtual_size.height:
            page.anchor()
        else:
            page.scroll_page_down(animate=False)

    def _change_password(self) -> None:
        def told(is_changed: bool | None) -> None:
            how = {
                True: "was changed",
                False: "was not changed",
                None: "may have been changed: the answer was not awaited",
            }
            self.show_note(f"your password {how[is_changed]}")

        self.app.push_screen(PasswordScreen(self.client), told)

    # --- output --------------------------------------------------------------------------------------

    def show_note(self, text: str) -> None:
        """Show a text until the next one. "help" stands for the help page."""
        self._note = HELP if text == "help" else text
        self._refresh()

    def _refresh_soon(self) -> None:
        """Schedule one redraw for the changes of many events."""
        if self._refresh_is_due is None:
            self._refresh_is_due = self._refresh_after(REFRESH_SECS)

    def _refresh_after(self, secs: float) -> asyncio.TimerHandle:
        """Schedule a redraw. A timer of Textual never fires if the process stalls for as long just when it is started."""
        return asyncio.get_running_loop().call_later(secs, self.call_next, self._refresh)

    def on_unmount(self) -> None:
        """Cancel what is scheduled."""
        for timer in (self._refresh_is_due, self._typing_ends):
            if timer is not None:
                timer.cancel()

    def _refresh(self) -> None:
        if self._refresh_is_due is not None:
            self._refresh_is_due.cancel()
            self._refresh_is_due = None
        model = self.model
        self._refresh_channels()
        if model.open_channel != self._page_of:
            self._page_of = model.open_channel
            self._page.anchor()
        lines = message_lines(model)
        self._messages.update(Text("\n").join(lines) if lines else Text("no messages"))
        note = Text(plain(self._note or model.typing))  # as Text, so that brackets are not markup
        self._typing.update(note)
        self._refresh_when_typing_ends()
        online = f", {len(model.online)} online" if model.online else ""
        self._status.update(Text(plain(f" {model.username}: {model.status}{online}")))

    def _refresh_when_typing_ends(self) -> None:
        if self._typing_ends is not None:
            self._typing_ends.cancel()
            self._typing_ends = None
        secs = self.model.typing_changes_in()
        if secs is not None:
            self._typing_ends = self._refresh_after(secs + TIMER_MARGIN_SECS)

    def _refresh_channels(self) -> None:
        """Rebuild the list if guilds or channels were added or removed; otherwise redraw changed lines only."""
        model = self.model
        channels: dict[str, list[ShownChannel]] = {guild_id: [] for guild_id in model.guilds}
        for channel in model.channels.values():
            channels.get(channel.guild_id, []).append(channel)
        listed = [(model.guilds[of], [channel.channel_id for channel in lines]) for of, lines in channels.items()]
        if listed != self._listed:
            self._listed, self._lines = listed, {}
            self._channels.clear()
            for name, ids in listed:
                guild = self._channels.root.add(Text(plain(name)), expand=True)
                self._lines.update((channel_id, ((), guild.add_leaf("", channel_id))) for channel_id in ids)
        for channel in (channel for lines in channels.values() for channel in lines):
            drawn, node = self._lines[channel.channel_id]
            state = channel.name, channel.unread, channel.channel_id == model.open_channel
            if state != drawn:
                node.set_label(channel_label(channel, state[2]))
                self._lines[channel.channel_id] = state, node
        if model.open_channel != self._scrolled_to:
            self._channels.call_after_refresh(self._scroll_to_open)

    def _scroll_to_open(self) -> None:
        """Scroll the list once to a newly opened channel."""
        open_channel = self.model.open_channel
        if open_channel in self._lines:
            self._scrolled_to = open_channel
            self._channels.scroll_to_node(self._lines[open_channel][1], animate=False)


class ChatApp(App[None]):
    """The app. `client` may be logged in already, by its session file."""

    TITLE = "OpenGuild"
    CSS = """
    #login { width: 60; height: auto; margin: 2 4; }
    #login Horizontal { height: auto; }
    """
    BINDINGS: ClassVar = [
        ("ctrl+q", "quit", "quit"),
        Binding("ctrl+c", "quit", "quit", show=False, priority=True),  # has priority over copying a selection
    ]

    def __init__(self, client: Client) -> None:
        super().__init__()
        self.client = client

    def on_mount(self) -> None:
        """Show the login, unless the client has a session, and then the chat."""
        if self.client.session is None:
            self._log_in(None)
        else:
            self._chat(None)

    def _log_in(self, _: None) -> None:
        self.client.session = None
        self.push_screen(LoginScreen(self.client), self._chat)

    def _chat(self, _: None) -> None:
        self.push_screen(ChatScreen(self.client), self._log_in)
