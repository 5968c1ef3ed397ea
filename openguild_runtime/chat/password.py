"""The screen to change the password."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Footer, Input, Label, Static

from openguild_proto.limits import MIN_PASSWORD_CHARS
from openguild_runtime.chat.render import problem_text
from openguild_runtime.client import ApiError, Client, Forbidden, OutcomeUnknown


class PasswordScreen(ModalScreen[bool | None]):
    """Asks for the current and a new password, and changes it. The result is whether it was changed, or None if unknown."""

    CSS = """
    #password { width: 60; height: auto; margin: 2 4; }
    """
    BINDINGS: ClassVar = [("escape", "leave", "leave it")]

    def __init__(self, client: Client) -> None:
        super().__init__()
        self._client = client
        self._may_be_changed = False  # the last request has no answer

    def compose(self) -> ComposeResult:
        with Vertical(id="password"):
            yield Label("Change your password. Your other devices will be logged out.")
            yield Input(placeholder="current password", password=True, id="current")
            yield Input(placeholder=f"new password, at least {MIN_PASSWORD_CHARS} characters", password=True, id="new")
            yield Input(placeholder="new password again", password=True, id="again")
            yield Button("Change it", id="change", variant="primary")
            yield Static("", id="problem")
        yield Footer()

    @on(Input.Submitted, "#current")
    def current_given(self) -> None:
        """Focus the new password."""
        self.query_one("#new", Input).focus()

    @on(Input.Submitted, "#new")
    def new_given(self) -> None:
        """Focus the repetition."""
        self.query_one("#again", Input).focus()

    @on(Input.Submitted, "#again")
    @on(Button.Pressed, "#change")
    def change(self) -> None:
        """Change the password."""
        self._change()

    def action_leave(self) -> None:
        """Close without a change, unless one has been requested."""
        self.dismiss(None if self._may_be_changed else False)

    @work(exclusive=True)
    async def _change(self) -> None:
        current, new, again = (self.query_one(f"#{field}", Input).value for field in ("current", "new", "again"))
        problem = self.query_one("#problem", Static)
        if new != again:
            problem.update("the two new passwords differ")
            return
        problem.update("...")
        self._may_be_changed = True
        try:
            await self._client.change_password(current, new)
        except Forbidden as refusal:
            self._may_be_changed = False
            wrong = refusal.code == "wrong_password"
            problem.update(Text("the current password is wrong" if wrong else problem_text(refusal)))
        except (ApiError, OutcomeUnknown) as failure:
            if isinstance(failure, OutcomeUnknown) or failure.status >= 500:
                problem.update(
                    Text(f"{problem_text(failure)}: it may have been changed; enter the new one in all three fields")
                )
            else:
                self._may_be_changed = False
                problem.update(Text(problem_text(failure)))
        else:
            self.dismiss(True)
