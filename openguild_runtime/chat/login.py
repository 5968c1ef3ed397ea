"""The login screen: name and password."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.screen import Screen
from textual.widgets import Button, Footer, Input, Label, Static

from openguild_proto.limits import MIN_PASSWORD_CHARS
from openguild_runtime.chat.render import problem_text
from openguild_runtime.client import ApiError, Client, Conflict, OutcomeUnknown, TlsFailed, Unauthorized


class LoginScreen(Screen[None]):
    """Asks for name and password, and registers or logs in."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        self._client = client

    def compose(self) -> ComposeResult:
        with Vertical(id="login"):
            yield Label("OpenGuild")
            yield Input(placeholder="name", id="name")
            yield Input(placeholder=f"password, at least {MIN_PASSWORD_CHARS} characters", password=True, id="password")
            with Horizontal():
                yield Button("Log in", id="enter", variant="primary")
                yield Button("Register", id="register")
            yield Static("", id="problem")
        yield Footer()

    @on(Input.Submitted, "#name")
    def name_given(self) -> None:
        """Focus the password."""
        self.query_one("#password", Input).focus()

    @on(Input.Submitted, "#password")
    @on(Button.Pressed, "#enter")
    def log_in(self) -> None:
        """Log in with the given name and password."""
        self._submit(self._client.login)

    @on(Button.Pressed, "#register")
    def register(self) -> None:
        """Create an account, then log in."""

        async def register(name: str, password: str) -> None:
            await self._client.register(name, password)
            await self._client.login(name, password)

        self._submit(register)

    @work(exclusive=True)
    async def _submit(self, enter: Callable[[str, str], Awaitable[None]]) -> None:
        name, password = (self.query_one(f"#{field}", Input).value for field in ("name", "password"))
        problem = self.query_one("#problem", Static)
        problem.update("...")
        try:
            await enter(name, password)
        except Conflict:
            problem.update("this name is taken: log in, or choose another name")
        except Unauthorized as failure:
            problem.update(Text(f"{problem_text(failure)}: no account yet? Press Register"))
        except (ApiError, OutcomeUnknown, TlsFailed) as failure:
            problem.update(Text(problem_text(failure)))
        except OSError as failure:  # the session file cannot be written
            told = f"cannot write {failure.filename} ({failure.strerror}): you have to log in again next time"
            self.app.notify(told, severity="warning", markup=False)
            self.dismiss(None)
        else:
            self.dismiss(None)
